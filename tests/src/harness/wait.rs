//! Waiting for something to happen on a descriptor, or for the end of a process, with a limit. Nothing in the scenarios
//! waits for time to pass.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for anything; the machine may be a hundred times slower than it should be, and one of four on two
/// processors. `SCENARIO_PATIENCE` in the environment makes it so many times longer, for kernels that check their memory.
pub fn limit() -> Duration {
    const LIMIT: Duration = Duration::from_secs(120);
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    let patience = || std::env::var("SCENARIO_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    LIMIT * *PATIENCE.get_or_init(patience)
}

/// Waits until one of `events` happens on `descriptor`; `false` when the deadline came first.
pub fn ready(descriptor: BorrowedFd<'_>, events: i16, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 };
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one structure that lives during the call.
        let found = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        if found > 0 {
            return true;
        }
        if found == 0 && Instant::now() >= deadline {
            return false;
        }
    }
}

/// Waits until a process has ended, whoever's child it is; `false` when the deadline came first.
pub fn ended(pid: i64, deadline: Instant) -> bool {
    // SAFETY: takes numbers.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if process < 0 {
        return std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    }
    // SAFETY: the kernel has just given it to us.
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    ready(process.as_fd(), libc::POLLIN, deadline)
}
