//! Who is at the other end of the control socket, and what it may ask for.

use std::io;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use tokio::net::unix::UCred;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Root: everything.
    Root,
    /// A member of the group that may read.
    Reader,
    /// Anybody else who got through to the socket: nothing.
    Other,
}

/// Who may read beside root. The socket's mode lets nobody else connect; this looks again, because a capability passes modes.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    /// The group whose members may read; none: root alone.
    pub group: Option<u32>,
    /// Where procfs is: it says which groups a process has beside its own.
    pub proc: PathBuf,
}

impl Readers {
    /// Tells who a peer is by what the kernel says of the process that connected. What can't be found out is no right.
    pub fn peer(&self, credentials: io::Result<UCred>) -> Peer {
        let Ok(credentials) = credentials else { return Peer::Other };
        if credentials.uid() == 0 {
            return Peer::Root;
        }
        let Some(group) = self.group else { return Peer::Other };
        let is_member = credentials.gid() == group
            || credentials.pid().is_some_and(|pid| self.has_group(pid, credentials.uid(), group));
        if is_member { Peer::Reader } else { Peer::Other }
    }

    fn has_group(&self, pid: i32, uid: u32, group: u32) -> bool {
        let process = Process::new_with_root(self.proc.join(pid.to_string()));
        let status = process.and_then(|process| process.status());
        // By the user, too: the process may have ended, and another have its id.
        status.is_ok_and(|status| status.euid == uid && status.groups.contains(&group))
    }
}

/// The number of a group that is given by its name, or is one.
///
/// # Errors
/// No line of `groups`, a file like `/etc/group`, has the name, or it can't be read.
pub fn group_id(name: &str, groups: &Path) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(groups)?;
    let number = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    let missing = || {
        let groups = groups.display();
        let message = format!("there is no group {name} in {groups}; make it with groupadd, or give its number");
        io::Error::new(io::ErrorKind::NotFound, message)
    };
    number.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_or_number_and_a_missing_one_is_told() {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-groups", std::process::id()));
        std::fs::write(&path, "root:x:0:\nbroken\nmonitor:x:971:a,b\nmonitors:x:972:\n").expect("file can be written");
        assert_eq!(group_id("monitor", &path).ok(), Some(971));
        assert_eq!(group_id("12", &path).ok(), Some(12));
        for missing in ["monit", "broken", ""] {
            let error = group_id(missing, &path).expect_err("is missing").to_string();
            assert!(error.contains("groupadd"), "{error}");
        }
        std::fs::remove_file(path).expect("file can be removed");
    }

    #[tokio::test]
    async fn a_peer_is_root_a_member_or_nobody() {
        let (one, _other) = tokio::net::UnixStream::pair().expect("sockets can be made");
        let own = one.peer_cred().expect("the kernel knows us");
        let readers = |group| Readers { group, proc: "/proc".into() };
        let own_group = own.gid();
        let expected = if own.uid() == 0 { [Peer::Root; 3] } else { [Peer::Other, Peer::Reader, Peer::Other] };
        let groups = [None, Some(own_group), Some(u32::MAX - 1)];
        assert_eq!(groups.map(|group| readers(group).peer(one.peer_cred())), expected);
        assert_eq!(readers(Some(own_group)).peer(Err(io::Error::other("unknown"))), Peer::Other);
        // What counts where the group is not the process's own.
        let (pid, uid) = (own.pid().expect("is a process"), own.uid());
        let status = Process::myself().and_then(|process| process.status()).expect("procfs is mounted");
        assert!(status.groups.iter().all(|group| readers(None).has_group(pid, uid, *group)));
        assert!(!readers(None).has_group(pid, uid + 1, own_group) && !readers(None).has_group(pid, uid, u32::MAX - 1));
    }
}
