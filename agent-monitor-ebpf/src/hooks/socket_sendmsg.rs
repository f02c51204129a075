//! Sends: to an address that is named in the call, TCP fast open among them; and to the peer that a socket is connected
//! to, see `peer.rs`. Control messages that send by way of other addresses are denied.

use crate::kernel::{self, Kernel, load, read};
use crate::operation::{Operation, earlier, guard};
use crate::peer::{SOCK_STREAM, is_kernels};
use crate::socket::{AF_INET, AF_INET6, AF_NETLINK, AF_UNSPEC, Endpoint, Sender};
use agent_monitor_common::class::{Builtin, Class, Fault, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/linux/in.h`
const UDP: u16 = 17;
const UDPLITE: u16 = 136;
const DCCP: u16 = 33;
const SCTP: u16 = 132;
/// `include/linux/socket.h`
const MSG_FASTOPEN: u32 = 0x2000_0000;

#[lsm(hook = "socket_sendmsg")]
fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let socket: Kernel = ctx.arg(0);
    let sk: Kernel = load(socket, &kernel::SOCKET_SK);
    if sk.is_null() || is_kernels(sk) {
        return earlier(ctx.arg(3));
    }
    let family: u16 = load(sk, &kernel::SOCK_FAMILY);
    if family == AF_NETLINK {
        // `netlink_send` sees it.
        return earlier(ctx.arg(3));
    }
    guard(
        HookId::SocketSendmsg,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            if family != AF_INET && family != AF_INET6 {
                return operation.judge_peer(sk, family, true);
            }
            let message: Kernel = ctx.arg(1);
            let control: u64 = load(message, &kernel::MSGHDR_CONTROL);
            let control_length: u64 = load(message, &kernel::MSGHDR_CONTROL_LENGTH);
            if control_length != 0 && routed(operation, control, control_length) {
                return true;
            }
            let judged = to(operation, sk, family, message, control_length != 0);
            if judged {
                operation.deny_if_routed(sk);
            }
            judged
        },
    )
}

/// Judges where a message goes.
#[inline(always)]
fn to(operation: &mut Operation<'_>, sk: Kernel, family: u16, message: Kernel, controlled: bool) -> bool {
    let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
    let udp = protocol == UDP || protocol == UDPLITE;
    if udp && let Some(pending) = Endpoint::pending(sk, family) {
        operation.judge_endpoint(pending, network::SEND);
        return true;
    }
    let name: u64 = load(message, &kernel::MSGHDR_NAME);
    let length: u32 = load(message, &kernel::MSGHDR_NAME_LENGTH);
    // TCP, MPTCP and SMC ignore the name, but for a fast open, which connects; DCCP ignores it always.
    let stream = protocol != SCTP && load::<u16>(sk, &kernel::SOCK_TYPE) == SOCK_STREAM;
    let flags: u32 = load(message, &kernel::MSGHDR_FLAGS);
    if name == 0 || length == 0 || stream && flags & MSG_FASTOPEN == 0 || protocol == DCCP {
        return operation.judge_internet_peer(sk, family, true);
    }
    let access = if stream { network::CONNECT } else { network::SEND };
    // udp_sendmsg() and raw_sendmsg() (`net/ipv4/{udp,raw}.c`) take AF_UNSPEC for AF_INET, rawv6_sendmsg() for
    // AF_INET6; udpv6_sendmsg() (`net/ipv6/{raw,udp}.c`) ignores such a name and sends to the peer.
    let unspecified = if family == AF_INET6 && udp { AF_UNSPEC } else { family };
    let from = Sender { elsewhere: controlled, ..Sender::socket(sk) };
    operation.judge_sockaddr(name, length, protocol.into(), unspecified, access, from)
        || operation.judge_internet_peer(sk, family, true)
}

/// Whether control messages send by way of other addresses (a source route in IP options, a routing header), or can't
/// be read; notes the denial then.
#[inline(always)]
fn routed(operation: &mut Operation<'_>, control: u64, length: u64) -> bool {
    // More than any use of them together.
    const MESSAGES: u32 = 8;
    // struct cmsghdr { size_t len; int level; int type }, each aligned to 8 bytes.
    const HEADER: u64 = 16;
    let mut at = 0;
    let mut i = 0;
    while i < MESSAGES {
        if at + HEADER > length {
            return false;
        }
        let [bytes, kind]: [u64; 2] = read(control + at);
        if bytes < HEADER {
            // The kernel refuses the call, or what is here can't be read.
            break;
        }
        if is_route(kind as u32, (kind >> 32) as u32) {
            operation.builtin(Class::Network, network::SEND, Builtin::SourceRoute);
            return true;
        }
        at += (bytes + 7) & !7;
        i += 1;
    }
    operation.fault(Class::Network, network::SEND, Fault::AddressUnreadable);
    true
}

/// Whether a control message of this level and type sets a route.
#[inline(always)]
fn is_route(level: u32, kind: u32) -> bool {
    // `include/linux/socket.h`, `include/uapi/linux/in.h`, `include/uapi/linux/in6.h`
    const SOL_IP: u32 = 0;
    const IP_RETOPTS: u32 = 7;
    const SOL_IPV6: u32 = 41;
    const IPV6_2292RTHDR: u32 = 5;
    const IPV6_RTHDR: u32 = 57;
    level == SOL_IP && kind == IP_RETOPTS || level == SOL_IPV6 && (kind == IPV6_RTHDR || kind == IPV6_2292RTHDR)
}
