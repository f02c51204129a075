//! Changes of a file or directory, told by inotify(7), so that nobody has to look again and again.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::wait::ready;

/// What is told of a file or directory.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Has changes of this kind told from now on.
    pub fn of(path: &Path, kind: u32) -> Result<Self> {
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the call takes a number; the descriptor that it gives is nobody's yet.
        let told = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        ensure!(told >= 0, "use inotify: {}", std::io::Error::last_os_error());
        // SAFETY: as above.
        let told = unsafe { OwnedFd::from_raw_fd(told) };
        // SAFETY: the path ends with NUL and lives during the call.
        let watched = unsafe { libc::inotify_add_watch(told.as_raw_fd(), name.as_ptr(), kind) };
        ensure!(watched >= 0, "watch {}: {}", path.display(), std::io::Error::last_os_error());
        Ok(Self(told))
    }

    /// Waits for the next ones; `false` when the deadline came first.
    pub fn next(&self, deadline: Instant) -> bool {
        let is_changed = ready(self.0.as_fd(), libc::POLLIN, deadline);
        let mut buffer = [0_u8; 4096];
        // SAFETY: the buffer is as long as is said, and nothing blocks.
        while unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
        is_changed
    }
}

/// Waits until something is so that only such changes of a file or directory bring about.
pub fn until(path: &Path, kind: u32, limit: Duration, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let (changes, deadline) = (Changes::of(path, kind)?, Instant::now() + limit);
    while !is_so()? {
        ensure!(changes.next(deadline), "not so in time: {what}");
    }
    Ok(())
}
