//! Core dumps: the kernel would start a program for them outside of the agent (`kernel.core_pattern` with a pipe), or
//! write a file. `do_coredump()` copies the credentials of the dying task before it does either, which is the one hook on
//! its way; without the copy there is no dump.

use super::power::power;
use crate::kernel::{self, load};
use crate::operation::earlier;
use crate::task::{PF_SIGNALED, current};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "cred_prepare")]
fn cred_prepare(ctx: LsmContext) -> i32 {
    if load::<u32>(current(), &kernel::TASK_FLAGS) & PF_SIGNALED == 0 {
        return earlier(ctx.arg(3));
    }
    power(HookId::CredPrepare, ctx.arg(3), Privilege::CoreDump)
}
