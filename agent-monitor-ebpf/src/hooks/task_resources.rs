//! Limits, priority and scheduling of a process that is not the agent's. One's own agent's processes need no rule.

use super::power;
use crate::kernel::Kernel;
use crate::operation::guard;
use crate::task::{is_monitor, is_of_agent};
use agent_monitor_common::class::{Builtin, Class};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `task_prlimit` is told credentials only, and not whose they are; this hook is told the task.
#[lsm(hook = "task_setrlimit")]
fn task_setrlimit(ctx: LsmContext) -> i32 {
    of_another(&ctx, HookId::TaskSetrlimit, ctx.arg(3))
}

#[lsm(hook = "task_setnice")]
fn task_setnice(ctx: LsmContext) -> i32 {
    of_another(&ctx, HookId::TaskSetnice, ctx.arg(2))
}

#[lsm(hook = "task_setioprio")]
fn task_setioprio(ctx: LsmContext) -> i32 {
    of_another(&ctx, HookId::TaskSetioprio, ctx.arg(2))
}

#[lsm(hook = "task_setscheduler")]
fn task_setscheduler(ctx: LsmContext) -> i32 {
    of_another(&ctx, HookId::TaskSetscheduler, ctx.arg(1))
}

/// Judges a change of the task that is a hook's first argument.
#[inline(always)]
fn of_another(ctx: &LsmContext, hook: HookId, previous: i32) -> i32 {
    guard(
        hook,
        Class::Privilege,
        previous,
        #[inline(always)]
        |operation| {
            let target: Kernel = ctx.arg(0);
            if is_of_agent(target, operation.agent) {
                return false;
            }
            power::judge_over(operation, Privilege::ResourcesAny, target);
            if is_monitor(target) {
                operation.becomes_builtin(Builtin::Monitor);
            }
            true
        },
    )
}
