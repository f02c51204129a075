//! Use of a capability, in any user namespace.

use crate::operation::{EACCES, guard};
use crate::path::operand;
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "capable")]
fn capable(ctx: LsmContext) -> i32 {
    let result = guard(HookId::Capable, Class::Capability, ctx.arg(4), |operation| {
        let capability: u32 = ctx.arg(2);
        let object = operand(&mut operation.scratch.object, [capability as u8]);
        let mut outcome = operation.judge(Class::Capability, object, OwnEntry::default(), USE);
        let options: u32 = ctx.arg(3);
        outcome.silent = options & CAP_OPT_NOAUDIT != 0;
        Some(outcome)
    });
    // What the caller sees is up to whoever asked; the errno of a refused capability is EPERM everywhere.
    if result == -EACCES { -EPERM } else { result }
}

/// `include/linux/security.h`: the kernel only looks whether it could; nothing is refused to the caller.
const CAP_OPT_NOAUDIT: u32 = 1 << 1;
const EPERM: i32 = 1;
