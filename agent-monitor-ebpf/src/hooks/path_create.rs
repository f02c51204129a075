//! Creation of names: files, directories, symbolic links.

use super::on_file_system;
use super::power::judge_mode;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::path::place_in;
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "path_mknod")]
fn path_mknod(ctx: LsmContext) -> i32 {
    named(&ctx, HookId::PathMknod, ctx.arg(4), file::CREATE, ctx.arg(2))
}

#[lsm(hook = "path_mkdir")]
fn path_mkdir(ctx: LsmContext) -> i32 {
    named(&ctx, HookId::PathMkdir, ctx.arg(3), file::CREATE, 0)
}

#[lsm(hook = "path_symlink")]
fn path_symlink(ctx: LsmContext) -> i32 {
    named(&ctx, HookId::PathSymlink, ctx.arg(3), file::CREATE, 0)
}

/// Judges `access` to the name that a hook's first two arguments give, directory and dentry, and the mode that what is
/// made there would get.
#[inline(always)]
pub fn named(ctx: &LsmContext, hook: HookId, previous: i32, access: u16, mode: u32) -> i32 {
    guard(
        hook,
        Class::File,
        previous,
        #[inline(always)]
        |operation| {
            let dentry: Kernel = ctx.arg(1);
            operation.judge_place(place_in(ctx.arg(0), dentry), access);
            on_file_system(operation, load(dentry, &kernel::DENTRY_SB));
            judge_mode(operation, mode);
            true
        },
    )
}
