//! Mounting and unmounting. Over the monitor's own files, the pins and cgroups nothing is mounted, and no file system of
//! pins is unmounted, alone or with the mount that it is on, whatever the policy says.

use super::{BPFFS_MAGIC, on_file_system, power};
use crate::kernel::{self, Kernel, load, offset, read};
use crate::operation::guard;
use crate::path::place_at;
use crate::scratch::{clear, reload};
use agent_monitor_common::class::{Builtin, Class, Reason, file};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "sb_mount")]
fn sb_mount(ctx: LsmContext) -> i32 {
    // The source of a move is a text that no hook resolves: it may be the mount of the pins. By move_mount(2) it is judged.
    let moves = ctx.arg::<u64>(3) & MS_MOVE != 0;
    over(
        HookId::SbMount,
        ctx.arg(5),
        ctx.arg(1),
        #[inline(always)]
        || moves,
    )
}

#[lsm(hook = "move_mount")]
fn move_mount(ctx: LsmContext) -> i32 {
    let from: Kernel = ctx.arg(0);
    over(
        HookId::MoveMount,
        ctx.arg(2),
        ctx.arg(1),
        #[inline(always)]
        || {
            let mount: Kernel = load(from, &kernel::PATH_MNT);
            let superblock: Kernel = load(mount, &kernel::VFSMOUNT_SB);
            load::<u64>(superblock, &kernel::SUPER_MAGIC) == BPFFS_MAGIC || is_mounted_on(mount)
        },
    )
}

#[lsm(hook = "sb_umount")]
fn sb_umount(ctx: LsmContext) -> i32 {
    guard(
        HookId::SbUmount,
        Class::Privilege,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            power::judge(operation, Privilege::Mount);
            let mount: Kernel = ctx.arg(0);
            let superblock: Kernel = load(mount, &kernel::VFSMOUNT_SB);
            let flags: u32 = ctx.arg(1);
            if load::<u64>(superblock, &kernel::SUPER_MAGIC) == BPFFS_MAGIC
                || flags & MNT_DETACH != 0 && is_mounted_on(mount)
            {
                operation.becomes_builtin(Builtin::Monitor);
            }
            true
        },
    )
}

/// `include/linux/fs.h`: takes away what is mounted on the mount, too.
const MNT_DETACH: u32 = 2;

/// Whether something is mounted on a mount.
#[inline(always)]
fn is_mounted_on(mount: Kernel) -> bool {
    // A list is empty where its head points to itself.
    let head = (mount as u64).wrapping_sub(offset(&kernel::MOUNT_MNT) as u64) + offset(&kernel::MOUNT_MOUNTS) as u64;
    read::<u64>(head) != head
}

/// `include/uapi/linux/mount.h`
const MS_MOVE: u64 = 8192;

/// Judges a mount that gets its place at `path`, or changes there. `moves_pins` says whether it may be the one of the pins, or
/// have that on it.
#[inline(always)]
fn over(hook: HookId, previous: i32, path: Kernel, moves_pins: impl FnOnce() -> bool) -> i32 {
    guard(
        hook,
        Class::Privilege,
        previous,
        #[inline(always)]
        |operation| {
            operation.judge_place(place_at(path as u64), file::WRITE);
            // Only whether it is the monitor's is asked: no rule on files is about what a mount hides.
            if reload(&operation.scratch.header.reason) != Reason::Builtin as u8 {
                clear(operation.scratch.header.labels.each_mut());
                let allowed = power::judge(operation, Privilege::Mount);
                let dentry: Kernel = load(path, &kernel::PATH_DENTRY);
                on_file_system(operation, load(dentry, &kernel::DENTRY_SB));
                if allowed && moves_pins() {
                    operation.becomes_builtin(Builtin::Monitor);
                }
            }
            true
        },
    )
}
