//! Watching a file or directory (inotify, fanotify, dnotify): it tells the names in it, and when what is done to them. It
//! needs the right to read what is watched.

use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::path::{Named, nameless, nameless_text, place_at, walk};
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

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
            let found = if matches!(named, Named::Path) {
                walk(operation.scratch.object(), place)
            } else {
                Ok(nameless_text(operation.scratch.object(), named))
            };
            let found = found.map(
                #[inline(always)]
                |object| operation.set_object(object),
            );
            operation.judge_found_path(Class::File, found, file::READ);
            true
        },
    )
}
