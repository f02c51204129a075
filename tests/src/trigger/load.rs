//! Steps that give the kernel something, or ask it for what root asks: modules, kernels, clocks, keys, the log.

use std::os::fd::AsRawFd;
use std::ptr::null;

use super::power::in_child;
use super::sys::{Done, check, descriptor};
use super::words::Words;

/// `include/uapi/linux/keyctl.h`
const KEY_SPEC_PROCESS_KEYRING: i32 = -2;
const KEY_SPEC_USER_KEYRING: i32 = -4;
const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
const KEYCTL_SESSION_TO_PARENT: i32 = 18;
const KEYCTL_DESCRIBE: i32 = 6;
/// `Q_SYNC` for quotas of users (`include/uapi/linux/quota.h`): the one command that needs no file system.
const Q_SYNC_USERS: i32 = 0x0080_0001_u32.wrapping_shl(8) as i32;
/// `UFFD_USER_MODE_ONLY`
const USER_MODE_ONLY: i32 = 1;
/// `PERF_TYPE_SOFTWARE`, whose event 0 is the CPU's clock.
const SOFTWARE: u32 = 1;
const ADJ_MAXERROR: u32 = 4;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("init-module-bytes", |_, _| {
        let bytes = [0_u8; 4096];
        // SAFETY: the bytes, which are no module, are as long as is said; the text is a constant.
        check(unsafe { libc::syscall(libc::SYS_init_module, bytes.as_ptr(), bytes.len(), c"".as_ptr()) })
    }),
    ("finit-module", |_, words| {
        // SAFETY: the file is no module.
        on_file(words, |file| unsafe { libc::syscall(libc::SYS_finit_module, file, c"".as_ptr(), 0) })
    }),
    // SAFETY: no segments: a kernel that was loaded before is given up, and there is none.
    ("kexec-load", |_, _| check(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) })),
    ("kexec-file", |_, words| {
        const NO_INITRAMFS: i32 = 4;
        // SAFETY: the file is no kernel.
        on_file(words, |file| unsafe {
            libc::syscall(libc::SYS_kexec_file_load, file, -1, 1, c"".as_ptr(), NO_INITRAMFS)
        })
    }),
    ("settimeofday", |_, _| {
        // SAFETY: the structure lives during the calls; the time that is set is the time that is.
        unsafe {
            let mut now: libc::timeval = std::mem::zeroed();
            libc::gettimeofday(&raw mut now, std::ptr::null_mut());
            check(libc::settimeofday(&raw const now, std::ptr::null()))
        }
    }),
    ("adjtimex", |_, _| {
        // SAFETY: the structure lives during the calls; what is set is what is.
        unsafe {
            let mut clock: libc::timex = std::mem::zeroed();
            check(libc::adjtimex(&raw mut clock))?;
            clock.modes = ADJ_MAXERROR;
            check(libc::adjtimex(&raw mut clock)).map(|_| 0)
        }
    }),
    // SAFETY: no file of this name is there.
    ("swapoff", |_, _| check(unsafe { libc::swapoff(c"/no-such-file".as_ptr()) })),
    // SAFETY: asks for the size of the log; nothing is written.
    ("kernel-log", |_, _| check(unsafe { libc::klogctl(10, std::ptr::null_mut(), 0) }).map(|_| 0)),
    // SAFETY: the command takes neither a file system nor a structure.
    ("quota", |_, _| check(unsafe { libc::quotactl(Q_SYNC_USERS, std::ptr::null(), 0, std::ptr::null_mut()) })),
    // SAFETY: gives the child, which ends, a right that it does not use.
    ("iopl", |_, _| in_child(|| unsafe { libc::iopl(3) }.into())),
    // SAFETY: as above.
    ("ioperm", |_, _| in_child(|| unsafe { libc::ioperm(0x80, 1, 1) }.into())),
    ("perf-event", |_, _| {
        let mut attributes = [0_u32; 16];
        attributes[0] = SOFTWARE;
        attributes[1] = size_of_val(&attributes) as u32;
        // SAFETY: the structure is as long as it says, the first version of it.
        let event = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
        descriptor(event as i32).map(|_| 0)
    }),
    ("add-key", |_, _| {
        in_child(|| {
            let (kind, name, ring) = (c"user", c"scenario", KEY_SPEC_PROCESS_KEYRING);
            // SAFETY: the texts end with NUL; one byte of the last is the key.
            unsafe { libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), name.as_ptr(), 1, ring) }
        })
    }),
    ("request-key", |_, _| {
        in_child(|| {
            let (kind, name, ring) = (c"user", c"no such key", KEY_SPEC_PROCESS_KEYRING);
            // SAFETY: the texts end with NUL.
            unsafe { libc::syscall(libc::SYS_request_key, kind.as_ptr(), name.as_ptr(), name.as_ptr(), ring) }
        })
    }),
    // A key that all processes of the user see; its id.
    ("make-key", |_, _| {
        let (kind, name, ring) = (c"user", c"scenario", KEY_SPEC_USER_KEYRING);
        // SAFETY: the texts end with NUL; one byte of the last is the key.
        check(unsafe { libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), name.as_ptr(), 1, ring) })
    }),
    ("describe-key", |_, words| {
        // SAFETY: no buffer is given: how long the description is.
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, words.number(1), 0, 0) }).map(|_| 0)
    }),
    // A child gives the process a session keyring of its own.
    ("give-session-keyring", |_, _| {
        in_child(|| {
            let none = null::<libc::c_char>();
            // SAFETY: there is no name, the rest are numbers.
            unsafe {
                if libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) < 0 {
                    return -1;
                }
                libc::syscall(libc::SYS_keyctl, KEYCTL_SESSION_TO_PARENT)
            }
        })
    }),
    ("userfaultfd", |_, _| {
        let flags = libc::O_CLOEXEC | USER_MODE_ONLY;
        // SAFETY: takes numbers.
        descriptor(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as i32).map(|_| 0)
    }),
    // SAFETY: takes numbers.
    ("secret-memory", |_, _| descriptor(unsafe { libc::syscall(libc::SYS_memfd_secret, 0) } as i32).map(|_| 0)),
];

fn on_file(words: &Words, call: impl FnOnce(i32) -> i64) -> Done {
    // SAFETY: the path ends with NUL.
    let file = descriptor(unsafe { libc::open(words.path(1).as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    check(call(file.as_raw_fd()))
}
