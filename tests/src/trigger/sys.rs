//! System calls that give their errno.

use std::os::fd::{FromRawFd, OwnedFd};

/// `include/uapi/asm-generic/fcntl.h`: which signal tells of a file.
pub const F_SETSIG: i32 = 10;

/// The value of a call, or its errno.
pub type Done = Result<i64, i32>;

/// The errno of the last call.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// What a call returned, with its errno where it failed.
pub fn check(value: impl Into<i64>) -> Done {
    match value.into() {
        -1 => Err(errno()),
        value => Ok(value),
    }
}

/// The same for a call that gives a new descriptor.
pub fn descriptor(value: i32) -> Result<OwnedFd, i32> {
    check(value)?;
    // SAFETY: the kernel has just given it to this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(value) })
}

/// A new pipe: the end to read from and the one to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), i32> {
    let mut ends = [0_i32; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((descriptor(ends[0])?, descriptor(ends[1])?))
}
