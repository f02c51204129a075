//! Options of a socket that make it send by way of other addresses: a source route in IP options, a routing header (also
//! one kept with a flow label), a header of the caller's own on a raw socket. A packet goes to the address that these
//! name, which no other hook sees. And one that has the kernel load a module.

use super::power::power;
use crate::operation::{earlier, guard_builtin};
use agent_monitor_common::class::{Builtin, Class, network};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/linux/socket.h`, `include/uapi/linux/in.h`, `include/uapi/linux/in6.h`
const SOL_IP: u32 = 0;
const IP_HDRINCL: u32 = 3;
const IP_OPTIONS: u32 = 4;
const SOL_IPV6: u32 = 41;
const IPV6_2292PKTOPTIONS: u32 = 6;
const IPV6_FLOWLABEL_MGR: u32 = 32;
const IPV6_HDRINCL: u32 = 36;
const IPV6_RTHDR: u32 = 57;
/// Where a raw socket takes IPV6_HDRINCL as well (`rawv6_setsockopt()` in `net/ipv6/raw.c`).
const SOL_RAW: u32 = 255;
// `include/linux/socket.h`, `include/uapi/linux/tcp.h`: a key of TCP-AO, whose algorithm the caller names (from 6.7 on,
// `tcp_ao_parse_crypto()` in `net/ipv4/tcp_ao.c`). The module for one that is not there is asked for by a thread of the
// kernel (`crypto/algboss.c`), in nobody's name.
const SOL_TCP: u32 = 6;
const TCP_AO_ADD_KEY: u32 = 38;

#[lsm(hook = "socket_setsockopt")]
fn socket_setsockopt(ctx: LsmContext) -> i32 {
    let (level, option): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    if level == SOL_TCP && option == TCP_AO_ADD_KEY {
        return power(HookId::SocketSetsockopt, ctx.arg(3), Privilege::KernelModule);
    }
    let routes = match level {
        SOL_IP => matches!(option, IP_HDRINCL | IP_OPTIONS),
        SOL_IPV6 => matches!(option, IPV6_2292PKTOPTIONS | IPV6_FLOWLABEL_MGR | IPV6_HDRINCL | IPV6_RTHDR),
        SOL_RAW => option == IPV6_HDRINCL,
        _ => false,
    };
    if !routes {
        return earlier(ctx.arg(3));
    }
    guard_builtin(HookId::SocketSetsockopt, Class::Network, ctx.arg(3), network::SEND, Builtin::SourceRoute)
}
