//! Receives: by whom the socket is connected to, see `peer.rs`. What arrives on a unix socket is not judged: its peer
//! hears nothing from the agent (`socket_sendmsg`), and a service's standard input may be one. Nor is what arrives where
//! nobody is connected: the agent was allowed to listen there, or to send.

use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use crate::peer::is_kernels;
use crate::socket::AF_UNIX;
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_recvmsg")]
fn socket_recvmsg(ctx: LsmContext) -> i32 {
    let socket: Kernel = ctx.arg(0);
    let sk: Kernel = load(socket, &kernel::SOCKET_SK);
    if sk.is_null() || is_kernels(sk) {
        return earlier(ctx.arg(4));
    }
    let family: u16 = load(sk, &kernel::SOCK_FAMILY);
    if family == AF_UNIX {
        return earlier(ctx.arg(4));
    }
    guard(
        HookId::SocketRecvmsg,
        Class::Network,
        ctx.arg(4),
        #[inline(always)]
        |operation| operation.judge_peer(sk, family, false),
    )
}
