//! io_uring operations with credentials that were registered before. What `capable` can't tell from an override by the
//! kernel itself must not be had by an agent.

use crate::operation::guard_builtin;
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "uring_override_creds")]
fn uring_override_creds(ctx: LsmContext) -> i32 {
    guard_builtin(HookId::UringOverrideCreds, Class::Privilege, ctx.arg(1), USE, Builtin::OtherCredentials)
}
