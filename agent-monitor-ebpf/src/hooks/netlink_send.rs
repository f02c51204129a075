//! Sends over netlink: the right to have such a socket, which somebody else may have made.

use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "netlink_send")]
fn netlink_send(ctx: LsmContext) -> i32 {
    guard(
        HookId::NetlinkSend,
        Class::Network,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let sk: Kernel = ctx.arg(0);
            operation.judge_kind(sk, load(sk, &kernel::SOCK_FAMILY));
            true
        },
    )
}
