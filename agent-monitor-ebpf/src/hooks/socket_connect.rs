//! Connect of internet sockets, and by family of all others but unix: its peers are judged where the peer is known.

use crate::kernel::{self, Kernel, load, read};
use crate::operation::guard;
use crate::socket::{AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, Sender};
use agent_monitor_common::class::{Class, Fault, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_connect")]
fn socket_connect(ctx: LsmContext) -> i32 {
    guard(
        HookId::SocketConnect,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let socket: Kernel = ctx.arg(0);
            let sk: Kernel = load(socket, &kernel::SOCKET_SK);
            if sk.is_null() {
                return false;
            }
            let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
            let family: u16 = load(sk, &kernel::SOCK_FAMILY);
            if family != AF_INET && family != AF_INET6 && family != AF_UNIX {
                // Judged where it is created; this one may have been made by somebody else.
                operation.judge_kind(sk, family);
                return true;
            }
            let name: Kernel = ctx.arg(1);
            if family != AF_UNIX && !matches!(read::<u16>(name as u64), AF_UNSPEC | AF_INET | AF_INET6) {
                // The call fails, but may give the socket a port first.
                operation.fault(Class::Network, network::CONNECT, Fault::AddressUnreadable);
                return true;
            }
            // AF_UNSPEC ends a connection; it names no address.
            let from = Sender::socket(sk);
            let judged =
                operation.judge_sockaddr(name as u64, ctx.arg(2), protocol.into(), AF_UNSPEC, network::CONNECT, from);
            if judged && family != AF_UNIX {
                operation.deny_if_routed(sk);
            }
            judged
        },
    )
}
