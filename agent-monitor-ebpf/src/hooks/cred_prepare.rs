//! Core dumps: the kernel would start a program for them outside of the agent (`kernel.core_pattern` with a pipe), or
//! write a file. `do_coredump()` copies the credentials of the dying task before it does either, which is the one hook on
//! its way; without the copy there is no dump.

use crate::kernel::{self, load};
use crate::operation::{earlier, guard};
use crate::path::operand;
use crate::task::{PF_SIGNALED, current};
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "cred_prepare")]
fn cred_prepare(ctx: LsmContext) -> i32 {
    if load::<u32>(current(), &kernel::TASK_FLAGS) & PF_SIGNALED == 0 {
        return earlier(ctx.arg(3));
    }
    guard(
        HookId::CredPrepare,
        Class::Privilege,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let object = operand(operation.scratch.object(), [Privilege::CoreDump as u8]);
            let object = operation.set_object(object);
            operation.judge(Class::Privilege, object, OwnEntry::default(), USE);
            true
        },
    )
}
