//! Process groups: a terminal stops and ends whole groups, whoever else is in them, and asks nobody. So where the session
//! is not the agent's own, its processes go into no group but their own.

use crate::kernel::Kernel;
use crate::operation::guard;
use crate::task::{current, id_in_namespace_of, leader, session_is_of_agent};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "task_setpgid")]
fn task_setpgid(ctx: LsmContext) -> i32 {
    guard(
        HookId::TaskSetpgid,
        Class::Privilege,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let (task, group): (Kernel, u32) = (ctx.arg(0), ctx.arg(1));
            if group == id_in_namespace_of(current(), leader(task)) || session_is_of_agent(operation.agent) {
                return false;
            }
            operation.builtin(Class::Privilege, USE, Builtin::OtherSession);
            true
        },
    )
}
