//! A process that asks its parent to trace it: the parent must be of the same agent.

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

#[lsm(hook = "ptrace_traceme")]
fn ptrace_traceme(ctx: LsmContext) -> i32 {
    guard(
        HookId::PtraceTraceme,
        Class::Privilege,
        ctx.arg(1),
        #[inline(always)]
        |operation| {
            let parent: Kernel = ctx.arg(0);
            if is_of_agent(parent, operation.agent) {
                power::judge_over(operation, Privilege::PtraceSameAgent, parent);
            } else {
                let object = operand(operation.scratch.object(), [Privilege::PtraceSameAgent as u8]);
                operation.set_object(object);
                operation.scratch.header.value = process(parent).into();
                operation.builtin(Class::Privilege, USE, Builtin::OtherAgent);
            }
            true
        },
    )
}
