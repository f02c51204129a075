//! Sending of signals, but to one's own process.

use crate::kernel::Kernel;
use crate::operation::guard;
use crate::path::operand;
use crate::task::{current, is_monitor, is_of_agent, process};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "task_kill")]
fn task_kill(ctx: LsmContext) -> i32 {
    guard(
        HookId::TaskKill,
        Class::Privilege,
        ctx.arg(4),
        #[inline(always)]
        |operation| {
            let target: Kernel = ctx.arg(0);
            if process(target) == process(current()) {
                return false;
            }
            let same = is_of_agent(target, operation.agent);
            let privilege = if same { Privilege::SignalSameAgent } else { Privilege::SignalAny };
            let object = operand(operation.scratch.object(), [privilege as u8]);
            let object = operation.set_object(object);
            operation.scratch.header.value = process(target).into();
            if is_monitor(target) {
                operation.builtin(Class::Privilege, USE, Builtin::Monitor);
            } else {
                operation.judge(Class::Privilege, object, OwnEntry::default(), USE);
            }
            true
        },
    )
}
