//! Sending of signals, but to one's own process.

use crate::kernel::Kernel;
use crate::operation::{Outcome, guard};
use crate::path::operand;
use crate::task::{binding_of, current, is_monitor, process};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "task_kill")]
fn task_kill(ctx: LsmContext) -> i32 {
    guard(HookId::TaskKill, Class::Privilege, ctx.arg(4), |operation| {
        let target: Kernel = ctx.arg(0);
        if process(target) == process(current()) {
            return None;
        }
        let same = binding_of(target).is_some_and(|binding| binding.agent == operation.binding.agent);
        let privilege = if same { Privilege::SignalSameAgent } else { Privilege::SignalAny };
        let object = operand(&mut operation.scratch.object, [privilege as u8]);
        let outcome = if is_monitor(target) {
            Outcome::builtin(Class::Privilege, USE, Builtin::Monitor, Some(object))
        } else {
            operation.judge(Class::Privilege, object, OwnEntry::default(), USE)
        };
        Some(Outcome { value: process(target).into(), ..outcome })
    })
}
