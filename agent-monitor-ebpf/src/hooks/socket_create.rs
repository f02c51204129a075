//! Creation of sockets: the gate of every family.

use crate::operation::{earlier, guard};
use crate::path::operand;
use crate::socket::{AF_INET, AF_INET6};
use agent_monitor_common::class::{Builtin, Class, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::{SOCKET, socket_kind};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/linux/net.h`, `include/uapi/linux/in.h`
const SOCK_RAW: u32 = 3;
const IPPROTO_RAW: u32 = 255;

#[lsm(hook = "socket_create")]
fn socket_create(ctx: LsmContext) -> i32 {
    let for_the_kernel: i32 = ctx.arg(3);
    if for_the_kernel != 0 {
        return earlier(ctx.arg(4));
    }
    guard(
        HookId::SocketCreate,
        Class::Network,
        ctx.arg(4),
        #[inline(always)]
        |operation| {
            let kind = socket_kind(ctx.arg(0), ctx.arg(1), ctx.arg(2));
            let object = operand(operation.scratch.object(), [SOCKET, kind]);
            let object = operation.set_object(object);
            operation.judge(Class::Network, object, OwnEntry::default(), network::CREATE);
            let (family, kind, protocol): (u32, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
            let internet = family == u32::from(AF_INET) || family == u32::from(AF_INET6);
            if internet && kind & 0xf == SOCK_RAW && protocol == IPPROTO_RAW {
                // It sends packets whose header, destination included, is the caller's own.
                operation.becomes_builtin(Builtin::SourceRoute);
            }
            true
        },
    )
}
