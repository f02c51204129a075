//! Tracing of another process, and reading its memory and protected `/proc` entries.

use crate::kernel::Kernel;
use crate::operation::{Outcome, guard};
use crate::path::operand;
use crate::task::{binding_of, process};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "ptrace_access_check")]
fn ptrace_access_check(ctx: LsmContext) -> i32 {
    guard(HookId::PtraceAccessCheck, Class::Privilege, ctx.arg(2), |operation| {
        let target: Kernel = ctx.arg(0);
        let same = binding_of(target).is_some_and(|binding| binding.agent == operation.binding.agent);
        let object = operand(&mut operation.scratch.object, [Privilege::PtraceSameAgent as u8]);
        let outcome = if same {
            operation.judge(Class::Privilege, object, OwnEntry::default(), USE)
        } else {
            Outcome::builtin(Class::Privilege, USE, Builtin::OtherAgent, Some(object))
        };
        Some(Outcome { value: process(target).into(), ..outcome })
    })
}
