//! A kernel thread that submits io_uring operations. It is in the agent's cgroup and its operations are judged like any
//! other, but it acts with the credentials of whoever attached to it.

use crate::operation::guard;
use crate::path::operand;
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "uring_sqpoll")]
fn uring_sqpoll(ctx: LsmContext) -> i32 {
    guard(
        HookId::UringSqpoll,
        Class::Privilege,
        ctx.arg(0),
        #[inline(always)]
        |operation| {
            let object = operand(operation.scratch.object(), [Privilege::IoUringSqpoll as u8]);
            let object = operation.set_object(object);
            operation.judge(Class::Privilege, object, OwnEntry::default(), USE);
            true
        },
    )
}
