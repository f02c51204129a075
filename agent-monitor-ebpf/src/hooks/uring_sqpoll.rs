//! A kernel thread that submits io_uring operations. It is in the agent's cgroup and its operations are judged like any
//! other, but it acts with the credentials of whoever attached to it.

use super::power::power;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "uring_sqpoll")]
fn uring_sqpoll(ctx: LsmContext) -> i32 {
    power(HookId::UringSqpoll, ctx.arg(0), Privilege::IoUringSqpoll)
}
