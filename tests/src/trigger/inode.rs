//! Steps on files beside reading, writing and names: attributes that are read, watches, message queues, subvolumes.

use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use super::files::ATTRIBUTE;
use super::power::in_child;
use super::sys::{Done, check, descriptor};
use super::words::Words;

/// `include/uapi/linux/btrfs.h`, with a `struct btrfs_ioctl_vol_args`.
const BTRFS_IOC_SUBVOL_CREATE: libc::Ioctl = 0x5000_940e;
const VOLUME_ARGUMENTS_BYTES: usize = 4096;
/// `include/uapi/linux/fsverity.h`, with a `struct fsverity_enable_arg`.
const FS_IOC_ENABLE_VERITY: libc::Ioctl = 0x4080_6685;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    // SAFETY (all below): paths and names end with NUL and live during the call; everything else is numbers.
    ("getxattr", |_, words| {
        let mut value = [0_u8; 8];
        // SAFETY: see above; the buffer is as long as is said.
        check(unsafe { libc::getxattr(words.path(1).as_ptr(), ATTRIBUTE.as_ptr(), value.as_mut_ptr().cast(), 8) } as i64)
            .map(|_| 0)
    }),
    // One that no kernel has of its own.
    ("getxattr-of-system", |_, words| {
        let mut value = [0_u8; 8];
        // SAFETY: see above; the buffer is as long as is said.
        let read =
            unsafe { libc::getxattr(words.path(1).as_ptr(), c"system.data".as_ptr(), value.as_mut_ptr().cast(), 8) };
        check(read as i64)
    }),
    ("fgetxattr", |held, words| {
        let (file, mut value) = (held.get(words, 1)?, [0_u8; 8]);
        // SAFETY: see above; the buffer is as long as is said.
        check(unsafe { libc::fgetxattr(file, ATTRIBUTE.as_ptr(), value.as_mut_ptr().cast(), 8) } as i64).map(|_| 0)
    }),
    ("getacl", |_, words| {
        // SAFETY: see above; no buffer is given, only the length is asked for.
        let length =
            unsafe { libc::getxattr(words.path(1).as_ptr(), c"system.posix_acl_access".as_ptr(), null_mut(), 0) };
        check(length as i64).map(|_| 0)
    }),
    // As user 1: sets, or removes, an attribute that says something to the kernel.
    ("setxattr-as-user", |_, words| {
        let (path, name) = (words.path(1), words.path(2));
        as_user(|| {
            // SAFETY: see above; the value is one byte.
            i64::from(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), b"1".as_ptr().cast(), 1, 0) })
        })
    }),
    ("removexattr-as-user", |_, words| {
        let (path, name) = (words.path(1), words.path(2));
        // SAFETY: see above.
        as_user(|| i64::from(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }))
    }),
    ("watch", |_, words| {
        // SAFETY: see above.
        let watcher = descriptor(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
        // SAFETY: see above.
        check(unsafe { libc::inotify_add_watch(watcher.as_raw_fd(), words.path(1).as_ptr(), libc::IN_CREATE) })
            .map(|_| 0)
    }),
    // A file or directory, all of the file system or mount that it is on, or its opens, which wait for the watcher.
    ("watch-by-group", |_, words| watch(words, libc::FAN_CLASS_NOTIF, 0, libc::FAN_OPEN)),
    ("watch-all", |_, words| watch(words, libc::FAN_CLASS_NOTIF, libc::FAN_MARK_FILESYSTEM, libc::FAN_OPEN)),
    ("watch-mount", |_, words| watch(words, libc::FAN_CLASS_NOTIF, libc::FAN_MARK_MOUNT, libc::FAN_OPEN)),
    ("watch-to-decide", |_, words| watch(words, libc::FAN_CLASS_CONTENT, 0, libc::FAN_OPEN_PERM)),
    ("freeze", |_, words| {
        const FIFREEZE: u32 = 0xc004_5877;
        control(words, FIFREEZE)
    }),
    // A key for the encrypted files of a file system.
    ("add-encryption-key", |_, words| {
        const FS_IOC_ADD_ENCRYPTION_KEY: u32 = 0xc050_6617;
        control(words, FS_IOC_ADD_ENCRYPTION_KEY)
    }),
    ("remove-encryption-key", |_, words| {
        const FS_IOC_REMOVE_ENCRYPTION_KEY: u32 = 0xc040_6618;
        control(words, FS_IOC_REMOVE_ENCRYPTION_KEY)
    }),
    // What btrfs and Ceph keep beside a file or directory.
    ("set-received", |_, words| {
        const BTRFS_IOC_SET_RECEIVED_SUBVOL: u32 = 0xc0c8_9425;
        control(words, BTRFS_IOC_SET_RECEIVED_SUBVOL)
    }),
    ("set-layout", |_, words| {
        const CEPH_IOC_SET_LAYOUT: u32 = 0x4028_9702;
        control(words, CEPH_IOC_SET_LAYOUT)
    }),
    // The ioctl with a number.
    ("control", |_, words| control(words, words.number(2) as u32)),
    // With the flag by which exec opens.
    ("queue-open-to-execute", |_, words| {
        const FMODE_EXEC: i32 = 0x20;
        // SAFETY: see above.
        descriptor(unsafe { libc::mq_open(words.path(1).as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | FMODE_EXEC) })
            .map(|_| 0)
    }),
    ("queue-open", |_, words| {
        let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: see above; no attributes are given.
        let queue =
            unsafe { libc::mq_open(words.path(1).as_ptr(), flags, 0o600 as libc::c_uint, null_mut::<libc::mq_attr>()) };
        descriptor(queue).map(|_| 0)
    }),
    // SAFETY: see above.
    ("queue-unlink", |_, words| check(unsafe { libc::mq_unlink(words.path(1).as_ptr()) })),
    ("subvolume", |held, words| {
        let mut arguments = [0_u8; VOLUME_ARGUMENTS_BYTES];
        arguments[8] = b's';
        // SAFETY: the arguments are as long as the number of the call says.
        check(unsafe { libc::ioctl(held.get(words, 1)?, BTRFS_IOC_SUBVOL_CREATE, arguments.as_mut_ptr()) })
    }),
    ("verity", |held, words| {
        let arguments = [0_u32; 32];
        // SAFETY: the arguments are as long as the number of the call says.
        check(unsafe { libc::ioctl(held.get(words, 1)?, FS_IOC_ENABLE_VERITY, arguments.as_ptr()) })
    }),
];

/// Opens a file or directory for reading and makes an ioctl with an argument of zeros.
fn control(words: &Words, command: u32) -> Done {
    // Longer than the arguments of all commands here.
    let mut argument = [0_u8; 256];
    // SAFETY: the path ends with NUL.
    let place = descriptor(unsafe { libc::open(words.path(1).as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    // SAFETY: the argument is longer than any command here takes.
    check(unsafe { libc::ioctl(place.as_raw_fd(), command as libc::Ioctl, argument.as_mut_ptr()) })
}

/// Watches a file by fanotify, with a kind of mark.
fn watch(words: &Words, class: u32, kind: u32, mask: u64) -> Done {
    // SAFETY: takes numbers.
    let group = descriptor(unsafe { libc::fanotify_init(libc::FAN_CLOEXEC | class, libc::O_RDONLY as u32) })?;
    let add = libc::FAN_MARK_ADD | kind;
    // SAFETY: the path ends with NUL.
    check(unsafe { libc::fanotify_mark(group.as_raw_fd(), add, mask, libc::AT_FDCWD, words.path(1).as_ptr()) })
}

/// Makes a call in a child that is user 1.
fn as_user(call: impl FnOnce() -> i64) -> Done {
    in_child(|| {
        // SAFETY: takes numbers.
        if unsafe { libc::setgid(1) } < 0 || unsafe { libc::setuid(1) } < 0 {
            return -1;
        }
        call()
    })
}
