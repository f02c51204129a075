//! Sends to an address that is named in the call, TCP fast open among them.

use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use crate::socket::{AF_INET, AF_INET6, AF_UNSPEC};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::protocol_byte;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

const TCP: u8 = 6;
const MSG_FASTOPEN: u32 = 0x2000_0000;

#[lsm(hook = "socket_sendmsg")]
fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let message: Kernel = ctx.arg(1);
    let name: u64 = load(message, &kernel::MSGHDR_NAME);
    if name == 0 {
        return earlier(ctx.arg(3));
    }
    guard(
        HookId::SocketSendmsg,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let socket: Kernel = ctx.arg(0);
            let sk: Kernel = load(socket, &kernel::SOCKET_SK);
            if sk.is_null() {
                return false;
            }
            let family: u16 = load(sk, &kernel::SOCK_FAMILY);
            if family != AF_INET && family != AF_INET6 {
                return false;
            }
            let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
            let mut access = network::SEND;
            if protocol_byte(protocol.into()) == TCP {
                // TCP ignores the name, but for a fast open, which connects.
                let flags: u32 = load(message, &kernel::MSGHDR_FLAGS);
                if flags & MSG_FASTOPEN == 0 {
                    return false;
                }
                access = network::CONNECT;
            }
            let length: u32 = load(message, &kernel::MSGHDR_NAME_LENGTH);
            if length == 0 {
                return false;
            }
            // udp_sendmsg() and raw_sendmsg() take AF_UNSPEC for AF_INET; udpv6_sendmsg() ignores such a name.
            let unspecified = if family == AF_INET { AF_INET } else { AF_UNSPEC };
            operation.judge_sockaddr(name, length, protocol.into(), unspecified, access)
        },
    )
}
