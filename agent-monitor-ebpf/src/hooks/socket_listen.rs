//! Listen, on whatever address the socket has by now.

use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::socket::{AF_INET, AF_INET6, AF_UNIX, Endpoint};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_listen")]
fn socket_listen(ctx: LsmContext) -> i32 {
    guard(
        HookId::SocketListen,
        Class::Network,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let socket: Kernel = ctx.arg(0);
            let sk: Kernel = load(socket, &kernel::SOCKET_SK);
            if sk.is_null() {
                return false;
            }
            let family: u16 = load(sk, &kernel::SOCK_FAMILY);
            match family {
                AF_UNIX => operation.judge_unix(sk, network::LISTEN),
                AF_INET | AF_INET6 => {
                    operation.judge_listen(Endpoint::local(sk, family));
                    true
                }
                // Its address can't be judged; a connection of TCP that was made one of SMC has another family, too.
                _ => {
                    operation.judge_kind(sk, family);
                    true
                }
            }
        },
    )
}
