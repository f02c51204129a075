//! Connect and send to a unix socket, judged on the peer's own path or abstract name. An unnamed peer is no object: it
//! can't be reached but by who made it (socketpair).

use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use agent_monitor_common::class::{Class, network};
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
        |operation| operation.judge_unix(ctx.arg(1), network::CONNECT),
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
