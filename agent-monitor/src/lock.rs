//! Locks of files and directories, each for one process alone. The kernel releases a lock when the process ends that has it,
//! however it ends.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Locks what is open here, as long as it is open.
///
/// # Errors
/// Another process has locked it, which is named, with what to do then; or the file system can't.
pub fn take(file: impl AsFd, what_to_do: &str) -> io::Result<()> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let holder = rustix::fs::fstat(&file).ok().and_then(|stat| holder(stat.st_ino));
            let holder = holder.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let message = format!("another agent-monitor process{holder} holds it; {what_to_do}");
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
        result => Ok(result?),
    }
}

/// The process that holds a lock of this file, as `/proc/locks` says: `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`.
fn holder(inode: u64) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let same = words.get(1) == Some(&"FLOCK") && words.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        words.get(4).filter(|_| same)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_directory_has_one_holder_who_is_named_until_it_is_closed() {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-held", std::process::id()));
        std::fs::create_dir_all(&path).expect("directory can be made");
        let open = || File::open(&path).expect("directory is there");
        let (first, second) = (open(), open());
        take(&first, "stop that").expect("nobody holds it");
        let refused = take(&second, "stop that").expect_err("it is held").to_string();
        let named = format!("(pid {}) holds it; stop that", std::process::id());
        assert!(refused.ends_with(&named), "{refused}");
        drop(first);
        take(&second, "").expect("it was released");
        std::fs::remove_dir(path).expect("directory can be removed");
    }
}
