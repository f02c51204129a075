//! Listen, on whatever address the socket has by now.

use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::socket::{AF_UNIX, Endpoint};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_listen")]
fn socket_listen(ctx: LsmContext) -> i32 {
    guard(HookId::SocketListen, Class::Network, ctx.arg(2), |operation| {
        let socket: Kernel = ctx.arg(0);
        let sk: Kernel = load(socket, &kernel::SOCKET_SK);
        if sk.is_null() {
            return None;
        }
        let family: u16 = load(sk, &kernel::SOCK_FAMILY);
        if family == AF_UNIX {
            return operation.unix(sk, network::LISTEN);
        }
        Some(operation.endpoint(Endpoint::local(sk)?, network::LISTEN))
    })
}
