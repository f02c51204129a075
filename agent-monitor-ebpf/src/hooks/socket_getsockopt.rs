//! Options of a socket that receive: TCP_ZEROCOPY_RECEIVE copies what has arrived into the caller's memory, and
//! `socket_recvmsg` is not asked (`tcp_zerocopy_receive()` in `net/ipv4/tcp.c`).

use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/socket.h`
const SOL_TCP: u32 = 6;
/// `include/uapi/linux/tcp.h`
const TCP_ZEROCOPY_RECEIVE: u32 = 35;

#[lsm(hook = "socket_getsockopt")]
fn socket_getsockopt(ctx: LsmContext) -> i32 {
    let (level, option): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    let socket: Kernel = ctx.arg(0);
    let sk: Kernel = load(socket, &kernel::SOCKET_SK);
    if level != SOL_TCP || option != TCP_ZEROCOPY_RECEIVE || sk.is_null() {
        return earlier(ctx.arg(3));
    }
    guard(
        HookId::SocketGetsockopt,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| operation.judge_peer(sk, load(sk, &kernel::SOCK_FAMILY), false),
    )
}
