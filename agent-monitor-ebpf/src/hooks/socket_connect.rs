//! Connect of internet sockets. Unix peers are judged where the peer is known.

use crate::kernel::{self, Kernel, load};
use crate::operation::{Outcome, guard};
use crate::socket::{AF_UNSPEC, Endpoint};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_connect")]
fn socket_connect(ctx: LsmContext) -> i32 {
    guard(HookId::SocketConnect, Class::Network, ctx.arg(3), |operation| {
        let socket: Kernel = ctx.arg(0);
        let sk: Kernel = load(socket, &kernel::SOCKET_SK);
        if sk.is_null() {
            return None;
        }
        let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
        let name: Kernel = ctx.arg(1);
        // AF_UNSPEC ends a connection; it names no address.
        match Endpoint::of_sockaddr(name as u64, ctx.arg(2), protocol.into(), AF_UNSPEC) {
            Ok(endpoint) => Some(operation.endpoint(endpoint?.destination(), network::CONNECT)),
            Err(fault) => Some(Outcome::fault(Class::Network, network::CONNECT, fault)),
        }
    })
}
