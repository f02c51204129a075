//! Cgroup programs on socket addresses. They see what no LSM hook does (TCP fast open, MPTCP subflows) and enforce the
//! network alone where the kernel runs no BPF LSM programs. They are attached to the root of the hierarchy, because a
//! program belongs to the cgroup that made the socket, not to the task that uses it; who is judged is the running task.

use crate::operation::{EACCES, guard};
use crate::socket::Endpoint;
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    v4(&ctx, HookId::Connect4, network::CONNECT)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    v6(&ctx, HookId::Connect6, network::CONNECT)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    v4(&ctx, HookId::Sendmsg4, network::SEND)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    v6(&ctx, HookId::Sendmsg6, network::SEND)
}

#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    v4(&ctx, HookId::Bind4, network::LISTEN)
}

#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    v6(&ctx, HookId::Bind6, network::LISTEN)
}

#[inline(always)]
fn v4(ctx: &SockAddrContext, hook: HookId, access: u16) -> i32 {
    // SAFETY: the context is valid while the program runs; the verifier checks each access.
    let endpoint = unsafe {
        let address = ctx.sock_addr;
        Endpoint::v4((*address).protocol, (*address).user_ip4, (*address).user_port as u16)
    };
    judge(hook, access, endpoint)
}

#[inline(always)]
fn v6(ctx: &SockAddrContext, hook: HookId, access: u16) -> i32 {
    // SAFETY: as above; volatile, because the verifier wants the four words loaded one by one.
    let endpoint = unsafe {
        let address = ctx.sock_addr;
        let at = (&raw const (*address).user_ip6).cast::<u32>();
        let ip = [
            core::ptr::read_volatile(at),
            core::ptr::read_volatile(at.add(1)),
            core::ptr::read_volatile(at.add(2)),
            core::ptr::read_volatile(at.add(3)),
        ];
        Endpoint::v6((*address).protocol, ip, (*address).user_port as u16)
    };
    judge(hook, access, endpoint)
}

/// Judges, and gives 1 to let pass, 0 to deny.
#[inline(always)]
fn judge(hook: HookId, access: u16, endpoint: Endpoint) -> i32 {
    let endpoint = if access == network::LISTEN { endpoint } else { endpoint.destination() };
    // SAFETY: the helper takes nothing.
    let earlier = unsafe { bpf_get_retval() };
    if earlier != 0 {
        return 1;
    }
    let result = guard(
        hook,
        Class::Network,
        0,
        #[inline(always)]
        |operation| {
            operation.judge_endpoint(endpoint, access);
            true
        },
    );
    if result == 0 {
        return 1;
    }
    // Without this the caller would get EPERM.
    // SAFETY: the helper takes any errno.
    unsafe { bpf_set_retval(-EACCES) };
    0
}
