//! Cgroup programs on socket addresses. They see what no LSM hook does (TCP fast open, MPTCP subflows) and enforce the
//! network alone where the kernel runs no BPF LSM programs. They are attached to the root of the hierarchy, because a
//! program belongs to the cgroup that made the socket, not to the task that uses it; who is judged is the running task.

use crate::operation::{EACCES, Operation, guard};
use crate::scratch::reload;
use crate::socket::{Endpoint, LOOPBACK, Sender};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    v4(&ctx, HookId::Connect4, network::CONNECT, 0)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    v6(&ctx, HookId::Connect6, network::CONNECT)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid while the program runs; only these programs may read this field.
    let source = unsafe { (*ctx.sock_addr).msg_src_ip4 };
    v4(&ctx, HookId::Sendmsg4, network::SEND, source)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    v6(&ctx, HookId::Sendmsg6, network::SEND)
}

#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    v4(&ctx, HookId::Bind4, network::LISTEN, 0)
}

#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    v6(&ctx, HookId::Bind6, network::LISTEN)
}

/// Judges an IPv4 address. `source` is the one that a message has to send from, or 0.
#[inline(always)]
fn v4(ctx: &SockAddrContext, hook: HookId, access: u16, source: u32) -> i32 {
    // SAFETY: the context is valid while the program runs; the verifier checks each access.
    let endpoint = unsafe {
        let address = ctx.sock_addr;
        Endpoint::v4((*address).protocol, (*address).user_ip4, (*address).user_port as u16)
    };
    judge(
        hook,
        access,
        #[inline(always)]
        |operation| {
            if access == network::LISTEN {
                return endpoint;
            }
            let elsewhere = source != 0 && source != LOOPBACK;
            let judged = endpoint.destination_of(Sender { elsewhere, ..sender(ctx, operation) });
            if endpoint.unspecified() {
                // SAFETY: as above. To connect and send, the address may be written.
                unsafe { (*ctx.sock_addr).user_ip4 = judged.address[3] };
            }
            judged
        },
    )
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
    judge(
        hook,
        access,
        #[inline(always)]
        |operation| {
            if access == network::LISTEN {
                return endpoint;
            }
            let judged = endpoint.destination_of(sender(ctx, operation));
            if endpoint.unspecified() {
                // SAFETY: as above; of an unspecified address the upper half is 0 and stays it.
                unsafe {
                    let at = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
                    core::ptr::write_volatile(at.add(2), judged.address[2]);
                    core::ptr::write_volatile(at.add(3), judged.address[3]);
                }
            }
            judged
        },
    )
}

/// Who sends, by no control message.
#[inline(always)]
fn sender(ctx: &SockAddrContext, operation: &mut Operation<'_>) -> Sender {
    // SAFETY: the context is valid while the program runs, and its socket as well.
    operation.scratch.address = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk } as u64;
    Sender { sk: reload(&operation.scratch.address), elsewhere: false }
}

/// Judges, and gives 1 to let pass, 0 to deny.
///
/// `address` gives the endpoint to judge, and writes it where the caller named none: what the kernel would take an
/// unspecified address for could change between this and its use, by an option that another thread sets or a control
/// message that no program sees.
#[inline(always)]
fn judge(hook: HookId, access: u16, address: impl FnOnce(&mut Operation<'_>) -> Endpoint) -> i32 {
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
            let endpoint = address(operation);
            if access == network::LISTEN {
                operation.judge_listen(endpoint);
            } else {
                operation.judge_endpoint(endpoint, access);
            }
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
