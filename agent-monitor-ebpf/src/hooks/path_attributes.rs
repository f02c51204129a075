//! Truncation, and change of mode and owner, of the file at a path.

use super::on_file_system;
use super::path_rename::is_directory;
use super::power::judge_mode;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::path::{Named, nameless, place_at};
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "path_truncate")]
fn path_truncate(ctx: LsmContext) -> i32 {
    at(&ctx, HookId::PathTruncate, ctx.arg(1), file::WRITE, 0)
}

#[lsm(hook = "path_chmod")]
fn path_chmod(ctx: LsmContext) -> i32 {
    at(&ctx, HookId::PathChmod, ctx.arg(2), file::SET_ATTRIBUTES, ctx.arg(1))
}

#[lsm(hook = "path_chown")]
fn path_chown(ctx: LsmContext) -> i32 {
    at(&ctx, HookId::PathChown, ctx.arg(3), file::SET_ATTRIBUTES, 0)
}

/// Judges `access` to the object of a hook's first argument, a `struct path`, and the mode that it would get.
#[inline(always)]
fn at(ctx: &LsmContext, hook: HookId, previous: i32, access: u16, mode: u32) -> i32 {
    guard(
        hook,
        Class::File,
        previous,
        #[inline(always)]
        |operation| {
            let path: Kernel = ctx.arg(0);
            let dentry: Kernel = load(path, &kernel::PATH_DENTRY);
            let place = place_at(path as u64);
            let named = nameless(load(dentry, &kernel::DENTRY_INODE), dentry, place.mount);
            if matches!(named, Named::Memfd) && access == file::WRITE {
                // Memory is not judged where it is made and written; before 6.2 this hook sees its ftruncate, too.
                return false;
            }
            let found = operation.object_at(place, named);
            operation.judge_found(Class::File, found, access);
            on_file_system(operation, load(dentry, &kernel::DENTRY_SB));
            // On a directory the bit says whose group the files in it are.
            if mode != 0 && !is_directory(dentry) {
                judge_mode(operation, mode);
            }
            true
        },
    )
}
