//! Connect and send to a unix socket, judged on the peer's own path or abstract name. An unnamed peer is no object: it
//! can't be reached but by who made it (socketpair).

use crate::kernel::{self, Kernel, address, load, read};
use crate::operation::guard;
use crate::task::is_monitors;
use agent_monitor_common::class::{Builtin, Class, Reason, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "unix_stream_connect")]
fn unix_stream_connect(ctx: LsmContext) -> i32 {
    guard(
        HookId::UnixStreamConnect,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let peer: Kernel = ctx.arg(1);
            let judged = operation.judge_unix(peer, network::CONNECT);
            // Under whatever name: an agent may have changed its root.
            if is_monitors(read(address(peer, &kernel::SOCK_PEER_PID))) {
                operation.note(Class::Network, network::CONNECT, Reason::Builtin, Builtin::Monitor as u8);
                return true;
            }
            judged
        },
    )
}

#[lsm(hook = "unix_may_send")]
fn unix_may_send(ctx: LsmContext) -> i32 {
    guard(
        HookId::UnixMaySend,
        Class::Network,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let peer: Kernel = ctx.arg(1);
            let sk: Kernel = load(peer, &kernel::SOCKET_SK);
            !sk.is_null() && operation.judge_unix(sk, network::SEND)
        },
    )
}
