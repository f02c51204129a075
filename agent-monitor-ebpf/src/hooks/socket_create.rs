//! Creation of sockets: the gate of every family.

use crate::operation::{earlier, guard};
use crate::path::operand;
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::{SOCKET, socket_kind};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

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
            true
        },
    )
}
