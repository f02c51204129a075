//! A step that goes on until it is told to stop, and tries what is forbidden and what is allowed in turn all the while.

use std::ffi::CStr;
use std::os::fd::AsRawFd;

use super::network::{address, of_protocol};
use super::sys::{Done, check, descriptor};
use super::words::Words;

/// What the errno of an allowed step is raised by for each step before it, so that the answer names both.
pub const STEP: i32 = 1000;

/// `hammer STOP FORBIDDEN ALLOWED FORBIDDEN:PORT ALLOWED:PORT`: opens the two files and connects to the two addresses until
/// something has the name STOP (to look a name up is not judged). Gives how many rounds there were; the errno of what was
/// allowed and failed, or `ENOTRECOVERABLE` for what was forbidden and worked, raised by [`STEP`]. With one more word only
/// what is allowed is tried.
pub const STEPS: &[super::Row] = &[("hammer", |_, words| {
    let (stop, forbidden, allowed) = (words.path(1), words.path(2), words.path(3));
    let (mut rounds, denied) = (0, || Err(libc::EACCES));
    let both = words.text(6).is_empty();
    while !exists(&stop) {
        let forbidden = if both { [open(&forbidden), connect(words, 4)] } else { [denied(), denied()] };
        let [file, address] = forbidden;
        let steps = [file, open(&allowed), address, connect(words, 5)];
        for (step, done) in steps.into_iter().enumerate() {
            let errno = if step % 2 == 0 { must_be_denied(done) } else { done.map(drop) };
            errno.map_err(|errno| errno + STEP * step as i32)?;
        }
        rounds += 1;
    }
    Ok(rounds)
})];

/// Whether something has this name.
pub fn exists(path: &CStr) -> bool {
    // SAFETY: the path ends with NUL; all zeros is a valid structure, which lives during the call.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::stat(path.as_ptr(), &raw mut found) == 0
    }
}

fn open(path: &CStr) -> Done {
    // SAFETY: the path ends with NUL.
    descriptor(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }).map(|_| 0)
}

fn connect(words: &Words, index: usize) -> Done {
    let socket = of_protocol("udp", false)?;
    let (name, length) = address(&words.text(index));
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length) })
}

fn must_be_denied(done: Done) -> Result<(), i32> {
    match done {
        Err(libc::EACCES) => Ok(()),
        Err(other) => Err(other),
        Ok(_) => Err(libc::ENOTRECOVERABLE),
    }
}
