//! Watching a file or directory (inotify, fanotify, dnotify): it tells the names in it, and when something is done to them.
//! It needs the right to read what is watched; for a whole mount or file system, or to decide about what others do, also the
//! privilege `mount`.

use super::power;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::path::{nameless, place_at};
use crate::scratch::reload;
use agent_monitor_common::class::{Class, Reason, file};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `FSNOTIFY_OBJ_TYPE_INODE` of `enum fsnotify_obj_type` (`include/linux/fsnotify_backend.h`): the others are whole mounts,
/// file systems and namespaces.
const OBJ_TYPE_INODE: u32 = 0;
/// `FAN_OPEN_PERM`, `FAN_ACCESS_PERM`, `FAN_OPEN_EXEC_PERM` and `FAN_PRE_ACCESS` (`include/uapi/linux/fanotify.h`): others
/// wait for what the watcher decides.
const DECISIONS: u64 = 0x17_0000;

#[lsm(hook = "path_notify")]
fn path_notify(ctx: LsmContext) -> i32 {
    guard(
        HookId::PathNotify,
        Class::File,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let path: Kernel = ctx.arg(0);
            let dentry: Kernel = load(path, &kernel::PATH_DENTRY);
            let place = place_at(path as u64);
            let named = nameless(load(dentry, &kernel::DENTRY_INODE), dentry, place.mount);
            let found = operation.object_at(place, named);
            operation.judge_found_path(Class::File, found, file::READ);
            let (mask, kind): (u64, u32) = (ctx.arg(1), ctx.arg(2));
            if (kind != OBJ_TYPE_INODE || mask & DECISIONS != 0)
                && reload(&operation.scratch.header.reason) == Reason::AllowRule as u8
            {
                power::judge(operation, Privilege::Mount);
            }
            true
        },
    )
}
