//! Options of a socket that make it send by way of other addresses: a source route in IP options, a routing header. A
//! packet goes to the first address of the route, which no other hook sees.

use crate::operation::{earlier, guard};
use agent_monitor_common::class::{Builtin, Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/linux/in.h`, `include/uapi/linux/in6.h`
const SOL_IP: u32 = 0;
const IP_OPTIONS: u32 = 4;
const SOL_IPV6: u32 = 41;
const IPV6_2292PKTOPTIONS: u32 = 6;
const IPV6_RTHDR: u32 = 57;

#[lsm(hook = "socket_setsockopt")]
fn socket_setsockopt(ctx: LsmContext) -> i32 {
    let (level, option): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    let routes = level == SOL_IP && option == IP_OPTIONS
        || level == SOL_IPV6 && (option == IPV6_RTHDR || option == IPV6_2292PKTOPTIONS);
    if !routes {
        return earlier(ctx.arg(3));
    }
    guard(
        HookId::SocketSetsockopt,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            operation.builtin(Class::Network, network::SEND, Builtin::SourceRoute);
            true
        },
    )
}
