//! What an ioctl can do to others: set a file's flags (append-only, immutable, those of XFS's interface) and what is like
//! them; make and remove subvolumes, read and name files whatever their paths; stop a file system; type into a terminal,
//! take it for another group; have signals sent to another process.

use super::file_open::judge_open;
use super::power::{self, power};
use super::{S_IFCHR, is_type};
use crate::kernel::{self, Kernel, load, offset};
use crate::operation::{earlier, guard, guard_builtin};
use crate::task::{is_own_id, session_is_of_agent};
use agent_monitor_common::class::{Builtin, Class, USE, file};
use agent_monitor_common::field::MISSING;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/linux/fs.h`, and the numbers of 32-bit callers.
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
// The generation of a file, by its general number and by ext4's old one; then the same of 32-bit callers.
const FS_IOC_SETVERSION: u32 = 0x4008_7602;
const EXT4_IOC_SETVERSION_OLD: u32 = 0x4008_6604;
const FS_IOC32_SETVERSION: u32 = 0x4004_7602;
const EXT4_IOC32_SETVERSION_OLD: u32 = 0x4004_6604;
// `include/uapi/linux/fs.h`: stop a whole file system, for everybody, and let it go on.
const FIFREEZE: u32 = 0xc004_5877;
const FITHAW: u32 = 0xc004_5878;
/// Ends a whole file system; the number is XFS's (`fs/xfs/libxfs/xfs_fs.h`), and others took it.
const XFS_IOC_GOINGDOWN: u32 = 0x8004_587d;
/// Makes a file that may be read one that nobody can write any more (`include/uapi/linux/fsverity.h`).
const FS_IOC_ENABLE_VERITY: u32 = 0x4080_6685;
/// Decides how what is made in an empty directory is encrypted (`include/uapi/linux/fscrypt.h`).
const FS_IOC_SET_ENCRYPTION_POLICY: u32 = 0x800c_6613;
/// Keys of encrypted files, for everybody who uses the file system (in `fscrypt.h`, too).
const FS_IOC_ADD_ENCRYPTION_KEY: u32 = 0xc050_6617;
const FS_IOC_REMOVE_ENCRYPTION_KEY: u32 = 0xc040_6618;
const FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS: u32 = 0xc040_6619;
/// Where a server keeps a file, or what is made in a directory (`fs/ceph/ioctl.h`).
const CEPH_IOC_SET_LAYOUT: u32 = 0x4028_9702;
const CEPH_IOC_SET_LAYOUT_POLICY: u32 = 0x4028_9705;
// `include/uapi/linux/msdos_fs.h`, `include/uapi/linux/f2fs.h`
const FAT_IOCTL_SET_ATTRIBUTES: u32 = 0x4004_7211;
const F2FS_IOC_SET_PIN_FILE: u32 = 0x4004_f50d;
/// Whether a subvolume can be written (`include/uapi/linux/btrfs.h`).
const BTRFS_IOC_SUBVOL_SETFLAGS: u32 = 0x4008_941a;
/// What a subvolume is a copy of, as `btrfs receive` says it (in `btrfs.h`, too).
const BTRFS_IOC_SET_RECEIVED_SUBVOL: u32 = 0xc0c8_9425;
const BTRFS_IOC_SET_RECEIVED_SUBVOL_32: u32 = 0xc0c0_9425;
// In `btrfs.h`, too: names in a directory that is open for reading, which no hook on paths sees made or removed. A copy of
// a subvolume has every file of it under another name.
const BTRFS_IOC_SNAP_CREATE: u32 = 0x5000_9401;
const BTRFS_IOC_SUBVOL_CREATE: u32 = 0x5000_940e;
const BTRFS_IOC_SNAP_DESTROY: u32 = 0x5000_940f;
const BTRFS_IOC_SNAP_CREATE_V2: u32 = 0x5000_9417;
const BTRFS_IOC_SUBVOL_CREATE_V2: u32 = 0x5000_9418;
const BTRFS_IOC_SNAP_DESTROY_V2: u32 = 0x5000_943f;
// In `btrfs.h`, too: write a file anew that is open for reading, so that it shares nothing with its copies any more.
const BTRFS_IOC_DEFRAG: u32 = 0x5000_9402;
const BTRFS_IOC_DEFRAG_RANGE: u32 = 0x4030_9410;
/// Tells whether a file that may only be written has the same contents (`include/uapi/linux/fs.h`).
const FIDEDUPERANGE: u32 = 0xc018_9436;
// The same as fallocate(2): give room, take it, fill with zeros (`include/linux/falloc.h`). Without the sizes of the structures,
// which differ for 32-bit callers.
const FS_IOC_RESVSP: u32 = 0x5828;
const FS_IOC_UNRESVSP: u32 = 0x5829;
const FS_IOC_RESVSP64: u32 = 0x582a;
const FS_IOC_UNRESVSP64: u32 = 0x582b;
const FS_IOC_ZERO_RANGE: u32 = 0x5839;
// In `btrfs.h`, too: tell what is in files of any name.
const BTRFS_IOC_TREE_SEARCH: u32 = 0xd000_9411;
const BTRFS_IOC_TREE_SEARCH_V2: u32 = 0xc070_9411;
const BTRFS_IOC_SEND: u32 = 0x4048_9426;
const BTRFS_IOC_SEND_32: u32 = 0x4044_9426;
/// Gives a file another name by names in the caller's memory (`fs/ocfs2/ocfs2_ioctl.h`).
const OCFS2_IOC_REFLINK: u32 = 0x4018_6f04;
// Open a file of XFS by a handle that the caller makes, with flags of the kernel's own; tell where its link leads; list, read
// and set its attributes (`fs/xfs/libxfs/xfs_fs.h`). Without the sizes of the structures, which differ for 32-bit callers.
const XFS_IOC_OPEN_BY_HANDLE: u32 = 0x586b;
const XFS_IOC_READLINK_BY_HANDLE: u32 = 0x586c;
const XFS_IOC_ATTRLIST_BY_HANDLE: u32 = 0x587a;
const XFS_IOC_ATTRMULTI_BY_HANDLE: u32 = 0x587b;
// Which names change below a directory of an SMB share, whatever lies in between (`fs/smb/client/cifs_ioctl.h`).
const CIFS_IOC_NOTIFY: u32 = 0x4005_cf09;
const CIFS_IOC_NOTIFY_INFO: u32 = 0xc009_cf0b;
/// Gives what lies in a directory, by its name, the directory's options (`fs/bcachefs/fs-ioctl.h`, 6.7 to 6.17).
const BCHFS_IOC_REINHERIT_ATTRS: u32 = 0x8008_bc40;
// Subvolumes of bcachefs (`fs/bcachefs/bcachefs_ioctl.h`).
const BCH_IOCTL_SUBVOLUME_CREATE: u32 = 0x4020_bc10;
const BCH_IOCTL_SUBVOLUME_DESTROY: u32 = 0x4020_bc11;
// `include/uapi/asm-generic/ioctls.h`, `include/uapi/asm-generic/sockios.h`: type a character into a terminal; the same
// by selection and paste; who gets signals about a file.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
/// The same as `F_SETFL` with `O_ASYNC`.
const FIOASYNC: u32 = 0x5452;
/// What a terminal makes of what is typed, for whoever uses it.
const TIOCSETD: u32 = 0x5423;
/// Takes a terminal for another group: that one reads what is typed, and the others stop.
const TIOCSPGRP: u32 = 0x5410;

#[lsm(hook = "file_ioctl")]
fn file_ioctl(ctx: LsmContext) -> i32 {
    judge(&ctx, HookId::FileIoctl, ctx.arg(3))
}

#[lsm(hook = "file_ioctl_compat")]
fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    judge(&ctx, HookId::FileIoctlCompat, ctx.arg(3))
}

#[inline(always)]
fn judge(ctx: &LsmContext, hook: HookId, previous: i32) -> i32 {
    let command: u32 = ctx.arg(1);
    match command {
        FS_IOC_SETFLAGS
        | FS_IOC32_SETFLAGS
        | FS_IOC_FSSETXATTR
        | FS_IOC_SETVERSION
        | EXT4_IOC_SETVERSION_OLD
        | FS_IOC32_SETVERSION
        | EXT4_IOC32_SETVERSION_OLD
        | FS_IOC_ENABLE_VERITY
        | FS_IOC_SET_ENCRYPTION_POLICY
        | FAT_IOCTL_SET_ATTRIBUTES
        | F2FS_IOC_SET_PIN_FILE
        | BTRFS_IOC_SUBVOL_SETFLAGS
        | BTRFS_IOC_SET_RECEIVED_SUBVOL
        | BTRFS_IOC_SET_RECEIVED_SUBVOL_32
        | CEPH_IOC_SET_LAYOUT
        | CEPH_IOC_SET_LAYOUT_POLICY
        | BCHFS_IOC_REINHERIT_ATTRS => judge_access(ctx, hook, previous, file::SET_ATTRIBUTES),
        _ if writes(command) => judge_access(ctx, hook, previous, file::WRITE),
        BTRFS_IOC_SNAP_CREATE
        | BTRFS_IOC_SUBVOL_CREATE
        | BTRFS_IOC_SNAP_DESTROY
        | BTRFS_IOC_SNAP_CREATE_V2
        | BTRFS_IOC_SUBVOL_CREATE_V2
        | BTRFS_IOC_SNAP_DESTROY_V2
        | BTRFS_IOC_TREE_SEARCH
        | BTRFS_IOC_TREE_SEARCH_V2
        | BTRFS_IOC_SEND
        | BTRFS_IOC_SEND_32
        | OCFS2_IOC_REFLINK
        | FIDEDUPERANGE
        | CIFS_IOC_NOTIFY
        | CIFS_IOC_NOTIFY_INFO
        | BCH_IOCTL_SUBVOLUME_CREATE
        | BCH_IOCTL_SUBVOLUME_DESTROY => power(hook, previous, Privilege::Subvolumes),
        FIFREEZE
        | FITHAW
        | XFS_IOC_GOINGDOWN
        | FS_IOC_ADD_ENCRYPTION_KEY
        | FS_IOC_REMOVE_ENCRYPTION_KEY
        | FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS => power(hook, previous, Privilege::Mount),
        FIOASYNC if signals_another(ctx.arg(0)) => judge_owner(hook, previous, 0),
        TIOCSPGRP => guard(
            hook,
            Class::Privilege,
            previous,
            #[inline(always)]
            |operation| {
                if session_is_of_agent(operation.agent) {
                    return false;
                }
                operation.builtin(Class::Privilege, USE, Builtin::OtherSession);
                true
            },
        ),
        TIOCSTI | TIOCLINUX | TIOCSETD => guard_builtin(hook, Class::Privilege, previous, USE, Builtin::TerminalInput),
        // The number of the process is in the caller's memory, where it may change after it was looked at.
        FIOSETOWN | SIOCSPGRP => judge_owner(hook, previous, 0),
        _ if is_by_handle(command) => power(hook, previous, Privilege::Subvolumes),
        _ => earlier(previous),
    }
}

/// Judges `access` to the open file.
#[inline(always)]
fn judge_access(ctx: &LsmContext, hook: HookId, previous: i32, access: u16) -> i32 {
    guard(
        hook,
        Class::File,
        previous,
        #[inline(always)]
        |operation| {
            judge_open(operation, ctx.arg(0), access);
            true
        },
    )
}

/// Whether an ioctl changes what is in the file, or where it is kept.
#[inline(always)]
fn writes(command: u32) -> bool {
    matches!(command, BTRFS_IOC_DEFRAG | BTRFS_IOC_DEFRAG_RANGE)
        // Its type and its number.
        || matches!(
            command & 0xffff,
            FS_IOC_RESVSP | FS_IOC_UNRESVSP | FS_IOC_RESVSP64 | FS_IOC_UNRESVSP64 | FS_IOC_ZERO_RANGE
        )
}

/// Whether an ioctl of XFS works on a file that a handle names.
#[inline(always)]
fn is_by_handle(command: u32) -> bool {
    // Its type and its number.
    matches!(
        command & 0xffff,
        XFS_IOC_OPEN_BY_HANDLE | XFS_IOC_READLINK_BY_HANDLE | XFS_IOC_ATTRLIST_BY_HANDLE | XFS_IOC_ATTRMULTI_BY_HANDLE
    )
}

/// Whether signals about an open file may go to a process that is not the caller's own: a device chooses who gets them, and
/// of any file it is who was named before, perhaps by somebody from whom it was inherited.
#[inline(always)]
pub fn signals_another(open: Kernel) -> bool {
    is_type(load(open, &kernel::FILE_F_INODE), S_IFCHR) || {
        let owner = owner(open);
        owner != 0 && !is_own_id(owner)
    }
}

/// The address of the `struct pid` of who gets the signals about an open file; 0 where nobody does.
#[inline(always)]
fn owner(open: Kernel) -> u64 {
    if offset(&kernel::FILE_OWNER_PID) != MISSING as usize {
        return load(open, &kernel::FILE_OWNER_PID);
    }
    let owner: Kernel = load(open, &kernel::FILE_OWNER);
    if owner.is_null() { 0 } else { load(owner, &kernel::FOWN_PID) }
}

/// Judges that signals about a file are sent to a process that is not the caller's own.
#[inline(always)]
pub fn judge_owner(hook: HookId, previous: i32, target: u64) -> i32 {
    guard(
        hook,
        Class::Privilege,
        previous,
        #[inline(always)]
        |operation| {
            operation.scratch.header.value = target;
            power::judge(operation, Privilege::SignalAny);
            true
        },
    )
}
