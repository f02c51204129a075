//! The places that the daemon listens on, and the lock that keeps a second daemon out.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::umask;
use tokio::net::{TcpListener, UnixListener};

use super::http::Listener;
use super::peer::Readers;

/// The listeners of a daemon.
pub struct Listeners {
    /// The control socket.
    pub control: Listener,
    /// Metrics and health.
    pub metrics: Option<Listener>,
    path: PathBuf,
}

/// Held as long as the daemon runs; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock beside the control socket.
    ///
    /// # Errors
    /// Another daemon holds it, which is named, or the file can't be made.
    pub fn take(socket: &Path) -> io::Result<Self> {
        if let Some(directory) = socket.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let path = lock_path(socket);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.take(32).read_to_string(&mut pid)?;
                let message = format!(
                    "another agent-monitor daemon (pid {}) serves {}; stop it first, or give this one a socket of its own",
                    pid.trim(),
                    socket.display()
                );
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// The lock file of a control socket.
pub fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

impl Listeners {
    /// Binds the control socket (mode 0600, or 0660 for a group that may read; one that a dead daemon left is replaced, which
    /// only the holder of the lock may do) and the address for metrics.
    ///
    /// # Errors
    /// One of them can't be bound.
    pub async fn bind(_lock: &Lock, socket: &Path, readers: Readers, metrics: Option<SocketAddr>) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // So that nobody can connect between the making of the socket and the change of its mode.
        let old = umask(Mode::from_bits_truncate(0o177));
        let control = UnixListener::bind(socket);
        umask(old);
        let group = readers.group;
        let control = Listener::Unix(control?, readers);
        std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
        if let Some(group) = group {
            share(socket, group)?;
        }
        let metrics = match metrics {
            Some(address) => Some(Listener::Tcp(TcpListener::bind(address).await?)),
            None => None,
        };
        Ok(Self { control, metrics, path: socket.to_owned() })
    }

    /// Takes the listeners apart: the control socket, metrics, and the path to remove at the end.
    pub fn into_parts(self) -> (Listener, Option<Listener>, PathBuf) {
        (self.control, self.metrics, self.path)
    }
}

/// Lets a group connect, and go through the directory if it is one that nobody else could.
fn share(socket: &Path, group: u32) -> io::Result<()> {
    // The group first: the mode would let the old one in.
    chown(socket, None, Some(group))?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o660))?;
    let Some(directory) = socket.parent() else { return Ok(()) };
    let metadata = std::fs::metadata(directory)?;
    let is_ours = metadata.mode() & 0o007 == 0 && (metadata.gid() == group || metadata.mode() & 0o070 == 0);
    if is_ours {
        chown(directory, None, Some(group))?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o710))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_of_the_first() {
        let socket = std::env::temp_dir().join(format!("agent-monitor-{}-lock/c.sock", std::process::id()));
        let first = Lock::take(&socket).expect("nobody holds it");
        let refused = Lock::take(&socket).expect_err("it is held").to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&socket).expect("it was released");
    }
}
