//! Bind of internet sockets and of abstract unix names. A unix path is a file that is created: `path_mknod`.

use crate::kernel::{self, Kernel, load, read};
use crate::operation::{Operation, guard};
use crate::path::operand;
use crate::socket::{AF_INET, AF_UNIX, AF_UNSPEC, Sender, abstract_name};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::UNIX;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_bind")]
fn socket_bind(ctx: LsmContext) -> i32 {
    guard(
        HookId::SocketBind,
        Class::Network,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let socket: Kernel = ctx.arg(0);
            let sk: Kernel = load(socket, &kernel::SOCKET_SK);
            let name: Kernel = ctx.arg(1);
            !sk.is_null() && judge(operation, sk, name as u64, ctx.arg(2))
        },
    )
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, sk: Kernel, name: u64, length: u32) -> bool {
    // struct sockaddr_un: { u16 family; char path[108] }; an abstract name starts with NUL.
    const FAMILY: u32 = 2;
    let family: u16 = load(sk, &kernel::SOCK_FAMILY);
    if family == AF_UNIX {
        if length == FAMILY {
            // The kernel chooses an abstract name; which one it is not known yet.
            let object = operand(operation.scratch.object(), [UNIX, b'@']);
            let object = operation.set_object(object);
            operation.judge(Class::Network, object, OwnEntry::default(), network::LISTEN);
            return true;
        }
        if length < FAMILY || read::<u8>(name + u64::from(FAMILY)) != 0 {
            return false;
        }
        match abstract_name(operation.scratch.object(), name, length) {
            Ok(object) => {
                let object = operation.set_object(object);
                operation.judge(Class::Network, object, OwnEntry::default(), network::LISTEN);
            }
            Err(fault) => operation.fault(Class::Network, network::LISTEN, fault),
        }
        return true;
    }
    let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
    let unspecified = if family == AF_INET { AF_INET } else { AF_UNSPEC };
    operation.judge_sockaddr(name, length, protocol.into(), unspecified, network::LISTEN, Sender::socket(sk))
}
