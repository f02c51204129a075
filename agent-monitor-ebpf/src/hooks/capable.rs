//! Use of a capability, in any user namespace.

use crate::kernel::{self, load};
use crate::operation::guard;
use crate::path::operand;
use crate::task::{acts_for_others, current};
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "capable")]
fn capable(ctx: LsmContext) -> i32 {
    let options: u32 = ctx.arg(3);
    guard(
        HookId::Capable,
        Class::Capability,
        ctx.arg(4),
        #[inline(always)]
        |operation| {
            let asked: u64 = ctx.arg(0);
            if acts_for_others() && asked == load::<u64>(current(), &kernel::TASK_CRED) {
                return false;
            }
            let capability: u32 = ctx.arg(2);
            let object = operand(operation.scratch.object(), [capability as u8]);
            let object = operation.set_object(object);
            operation.scratch.silent = (options & CAP_OPT_NOAUDIT).into();
            operation.judge(Class::Capability, object, OwnEntry::default(), USE);
            true
        },
    )
}

/// `include/linux/security.h`: the kernel only looks whether it could; nothing is refused to the caller.
const CAP_OPT_NOAUDIT: u32 = 1 << 1;
