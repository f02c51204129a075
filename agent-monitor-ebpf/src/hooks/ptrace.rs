//! Tracing of another process, and reading its memory and protected `/proc` entries; and a process that asks its parent to
//! trace it. Both must be of one agent.

use super::power;
use crate::kernel::Kernel;
use crate::operation::guard;
use crate::path::operand;
use crate::task::{is_of_agent, process};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "ptrace_access_check")]
fn ptrace_access_check(ctx: LsmContext) -> i32 {
    with(&ctx, HookId::PtraceAccessCheck, ctx.arg(2))
}

#[lsm(hook = "ptrace_traceme")]
fn ptrace_traceme(ctx: LsmContext) -> i32 {
    with(&ctx, HookId::PtraceTraceme, ctx.arg(1))
}

/// Judges that the running task traces, or is traced by, the task that is a hook's first argument.
#[inline(always)]
fn with(ctx: &LsmContext, hook: HookId, previous: i32) -> i32 {
    guard(
        hook,
        Class::Privilege,
        previous,
        #[inline(always)]
        |operation| {
            let other: Kernel = ctx.arg(0);
            if is_of_agent(other, operation.agent) {
                power::judge_over(operation, Privilege::PtraceSameAgent, other);
            } else {
                let object = operand(operation.scratch.object(), [Privilege::PtraceSameAgent as u8]);
                operation.set_object(object);
                operation.scratch.header.value = process(other).into();
                operation.builtin(Class::Privilege, USE, Builtin::OtherAgent);
            }
            true
        },
    )
}
