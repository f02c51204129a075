//! Tracing of another process, and reading its memory and protected `/proc` entries.

use crate::kernel::Kernel;
use crate::operation::guard;
use crate::path::operand;
use crate::task::{is_of_agent, process};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "ptrace_access_check")]
fn ptrace_access_check(ctx: LsmContext) -> i32 {
    guard(
        HookId::PtraceAccessCheck,
        Class::Privilege,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let target: Kernel = ctx.arg(0);
            let object = operand(operation.scratch.object(), [Privilege::PtraceSameAgent as u8]);
            let object = operation.set_object(object);
            operation.scratch.header.value = process(target).into();
            if is_of_agent(target, operation.agent) {
                operation.judge(Class::Privilege, object, OwnEntry::default(), USE);
            } else {
                operation.builtin(Class::Privilege, USE, Builtin::OtherAgent);
            }
            true
        },
    )
}
