//! Removal of names.

use super::path_create::named;
use agent_monitor_common::class::file;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "path_unlink")]
fn path_unlink(ctx: LsmContext) -> i32 {
    named(&ctx, HookId::PathUnlink, ctx.arg(2), file::DELETE, 0)
}

#[lsm(hook = "path_rmdir")]
fn path_rmdir(ctx: LsmContext) -> i32 {
    named(&ctx, HookId::PathRmdir, ctx.arg(2), file::DELETE, 0)
}
