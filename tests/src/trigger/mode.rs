//! Steps that make files with modes of their own, and those on terminals, sessions and process groups.

use std::os::fd::AsRawFd;

use super::power::in_child;
use super::sys::{F_SETSIG, check, descriptor, errno};
use super::task::pausing;

const F_SETDELEG: i32 = 1040;
/// `include/uapi/linux/fs.h`
const FS_IOC_SETFLAGS: libc::Ioctl = 0x4008_6602;
const FS_CASEFOLD_FL: i32 = 0x4000_0000;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    // SAFETY (all below): paths end with NUL and live during the call; everything else is numbers.
    ("make-mode", |_, words| {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
        // SAFETY: see above.
        descriptor(unsafe { libc::open(words.path(1).as_ptr(), flags, words.number(2) as libc::c_uint) }).map(|_| 0)
    }),
    ("mknod-mode", |_, words| {
        // SAFETY: see above.
        check(unsafe { libc::mknod(words.path(1).as_ptr(), libc::S_IFREG | words.number(2) as u32, 0) })
    }),
    ("make-nameless", |_, words| {
        let flags = libc::O_TMPFILE | libc::O_WRONLY | libc::O_CLOEXEC;
        // SAFETY: see above.
        descriptor(unsafe { libc::open(words.path(1).as_ptr(), flags, words.number(2) as libc::c_uint) }).map(|_| 0)
    }),
    ("fold", |_, words| {
        // SAFETY: see above.
        let directory = descriptor(unsafe { libc::open(words.path(1).as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
        let flags = FS_CASEFOLD_FL;
        // SAFETY: the argument is a number of four bytes.
        check(unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags) })
    }),
    ("delegation", |held, words| {
        // struct delegation { u32 flags; u16 type, padding }; taken, and given back.
        for kind in [libc::F_RDLCK, libc::F_UNLCK] {
            let request = [0_u16, 0, kind as u16, 0];
            // SAFETY: the request is as long as the structure.
            check(unsafe { libc::fcntl(held.get(words, 1)?, F_SETDELEG, request.as_ptr()) })?;
        }
        Ok(0)
    }),
    // Signals about the file, on and off again.
    ("async", |held, words| {
        let file = held.get(words, 1)?;
        for flags in [libc::O_ASYNC, 0] {
            // SAFETY: takes numbers.
            check(unsafe { libc::fcntl(file, libc::F_SETFL, flags) })?;
        }
        Ok(0)
    }),
    ("async-ioctl", |held, words| {
        let file = held.get(words, 1)?;
        for on in [1_i32, 0] {
            // SAFETY: a number of four bytes.
            check(unsafe { libc::ioctl(file, libc::FIOASYNC, &raw const on) })?;
        }
        Ok(0)
    }),
    ("set-signal", |held, words| {
        let file = held.get(words, 1)?;
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(file, F_SETSIG, libc::SIGKILL) })?;
        // SAFETY: takes numbers; 0 is what it was.
        check(unsafe { libc::fcntl(file, F_SETSIG, 0) })
    }),
    ("take-foreground", |held, words| {
        // SAFETY: takes numbers.
        let own = unsafe { libc::getpgrp() };
        // SAFETY: a number of four bytes.
        check(unsafe { libc::ioctl(held.get(words, 1)?, libc::TIOCSPGRP, &raw const own) })
    }),
    // SAFETY: takes numbers.
    ("join-group", |_, words| check(unsafe { libc::setpgid(0, words.number(1) as i32) })),
    // Puts a child into a group whose number is the child's own in its namespace.
    ("join-group-of-number", |_, words| {
        let group = words.number(1) as i32;
        in_child(|| {
            // SAFETY: takes a number.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } < 0 {
                return -1;
            }
            // A namespace of processes needs a first one.
            let Ok(first) = pausing(None) else { return -1 };
            let joined = match pausing(Some(group)) {
                // SAFETY: takes numbers.
                Ok(child) => i64::from(unsafe { libc::setpgid(child, group) }),
                Err(_) => -1,
            };
            let errno = errno();
            // SAFETY: takes numbers; all others in the namespace end with its first process.
            unsafe {
                libc::kill(first, libc::SIGKILL);
                *libc::__errno_location() = errno;
            }
            joined
        })
    }),
    // SAFETY: takes nothing.
    ("lead-session", |_, _| check(unsafe { libc::setsid() }).map(|_| 0)),
];
