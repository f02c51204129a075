//! Who is ended where the machine's memory runs out: an agent can fill it. With `run` enforcement ends, and without a daemon
//! nobody reads what is denied. So the monitor asks the kernel never to choose it; what it starts for others must not have
//! the same.

use std::fs;
use std::io;
use std::path::Path;

/// Where the kernel is told how much a process is to be preferred when one must be ended.
const SCORE: &str = "/proc/self/oom_score_adj";
/// The process is never chosen.
const NEVER: i16 = -1000;

/// Asks the kernel to end anything but this process where memory runs out, and gives back what was asked for before. Where
/// that is refused (no CAP_SYS_RESOURCE) a warning says so, and this process goes on all the same.
pub fn spare() -> Option<i16> {
    match change(Path::new(SCORE)) {
        Ok(before) => Some(before),
        Err(error) => {
            tracing::warn!(
                "cannot write {NEVER} to {SCORE}: {error}; where memory runs out the kernel may end this process like any \
                 other; start it with CAP_SYS_RESOURCE"
            );
            None
        }
    }
}

fn change(score: &Path) -> io::Result<i16> {
    let before = fs::read_to_string(score)?;
    let before = before.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    fs::write(score, NEVER.to_string())?;
    Ok(before)
}

/// Gives this process, which is to become a command, what the caller of the monitor had.
///
/// # Errors
/// The kernel refuses it: an agent that is never ended would have the kernel end everything else.
pub fn give_back(before: i16) -> io::Result<()> {
    fs::write(SCORE, before.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_before_is_kept() {
        let file = std::env::temp_dir().join(format!("agent-monitor-{}-score", std::process::id()));
        for before in [-999, 0, 500] {
            fs::write(&file, format!("{before}\n")).expect("file can be made");
            assert_eq!(change(&file).expect("can be changed"), before);
            assert_eq!(fs::read_to_string(&file).expect("can be read"), "-1000");
        }
        fs::write(&file, "nonsense\n").expect("file can be made");
        assert!(change(&file).is_err());
        assert_eq!(fs::read_to_string(&file).expect("can be read"), "nonsense\n", "it could not be given back");
        fs::remove_file(&file).expect("file can be removed");
        assert!(change(&file).is_err());
    }
}
