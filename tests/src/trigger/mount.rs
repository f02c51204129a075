//! Steps on mounts, old calls and new ones. What is changed is put back at once.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null;

use super::sys::{Done, check, descriptor};

const OPEN_TREE_CLONE: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
/// `MOVE_MOUNT_F_EMPTY_PATH`
const FROM_EMPTY: u32 = 4;

/// `struct mount_attr` (`include/uapi/linux/mount.h`).
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("remount", |_, words| mount(None, &words.path(1), libc::MS_REMOUNT)),
    ("make-private", |_, words| mount(None, &words.path(1), libc::MS_PRIVATE)),
    ("move-mount", |_, words| {
        let (from, to) = (words.path(1), words.path(2));
        mount(Some(&from), &to, libc::MS_MOVE)?;
        mount(Some(&to), &from, libc::MS_MOVE)
    }),
    // The same by the new call.
    ("move-mount-new", |_, words| {
        let (from, to, here) = (words.path(1), words.path(2), libc::AT_FDCWD);
        let move_one = |from: &CStr, to: &CStr| {
            // SAFETY: the paths end with NUL.
            check(unsafe { libc::syscall(libc::SYS_move_mount, here, from.as_ptr(), here, to.as_ptr(), 0) })
        };
        move_one(&from, &to)?;
        move_one(&to, &from)
    }),
    // SAFETY: the path ends with NUL.
    ("unmount", |_, words| check(unsafe { libc::umount2(words.path(1).as_ptr(), libc::MNT_DETACH) })),
    ("mount-attributes", |_, words| {
        const NO_SUID: u64 = 2;
        let attributes = Attributes { set: NO_SUID, clear: 0, propagation: 0, namespace: 0 };
        let (path, size) = (words.path(1), size_of::<Attributes>());
        // SAFETY: the path ends with NUL, the structure is as long as is said.
        let set = unsafe {
            libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), 0, &raw const attributes, size)
        };
        check(set)
    }),
    // A mount that has no place yet.
    ("hold-mount", |held, words| {
        // SAFETY: texts end with NUL.
        let mount = unsafe {
            let context = call(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0))?;
            let (none, context) = (null::<u8>(), context.as_raw_fd());
            check(libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, none, none, 0))?;
            call(libc::syscall(libc::SYS_fsmount, context, 0, 0))?
        };
        held.keep(words, 1, mount);
        Ok(0)
    }),
    // What a file system is configured by, and its configuration.
    ("hold-pick", |held, words| {
        let path = words.path(2);
        // SAFETY: the path ends with NUL.
        let picked = call(unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, path.as_ptr(), 0) })?;
        held.keep(words, 1, picked);
        Ok(0)
    }),
    ("configure-held", |held, words| {
        const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
        let none = null::<u8>();
        // SAFETY: takes numbers; there is no text with this command.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, held.get(words, 1)?, FSCONFIG_CMD_RECONFIGURE, none, none, 0)
        })
    }),
    ("place-mount", |held, words| {
        let (mount, path, from) = (held.get(words, 1)?, words.path(2), c"");
        let to = libc::AT_FDCWD;
        // SAFETY: texts end with NUL.
        check(unsafe { libc::syscall(libc::SYS_move_mount, mount, from.as_ptr(), to, path.as_ptr(), FROM_EMPTY) })
    }),
    ("clone-mount", |_, words| {
        let path = words.path(1);
        // SAFETY: the path ends with NUL.
        call(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), OPEN_TREE_CLONE) }).map(|_| 0)
    }),
    ("pick-mount", |_, words| {
        let path = words.path(1);
        // SAFETY: the path ends with NUL.
        call(unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, path.as_ptr(), 0) }).map(|_| 0)
    }),
];

fn mount(from: Option<&CStr>, to: &CStr, flags: u64) -> Done {
    // SAFETY: texts end with NUL or are not there.
    check(unsafe { libc::mount(from.map_or(null(), CStr::as_ptr), to.as_ptr(), null(), flags, null()) })
}

fn call(value: i64) -> Result<OwnedFd, i32> {
    descriptor(value as i32)
}
