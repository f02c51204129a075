//! Bind of internet sockets and of abstract unix names. A unix path is a file that is created: `path_mknod`.

use crate::kernel::{self, Kernel, load, read};
use crate::operation::{Operation, Outcome, guard};
use crate::socket::{AF_INET, AF_UNIX, AF_UNSPEC, Endpoint, abstract_name};
use agent_monitor_common::class::{Class, Fault, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "socket_bind")]
fn socket_bind(ctx: LsmContext) -> i32 {
    guard(HookId::SocketBind, Class::Network, ctx.arg(3), |operation| {
        let socket: Kernel = ctx.arg(0);
        let sk: Kernel = load(socket, &kernel::SOCKET_SK);
        if sk.is_null() {
            return None;
        }
        let name: Kernel = ctx.arg(1);
        judge(operation, sk, name as u64, ctx.arg(2))
            .unwrap_or_else(|fault| Some(Outcome::fault(Class::Network, network::LISTEN, fault)))
    })
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, sk: Kernel, name: u64, length: u32) -> Result<Option<Outcome>, Fault> {
    // struct sockaddr_un: { u16 family; char path[108] }; an abstract name starts with NUL.
    const FAMILY: u32 = 2;
    let family: u16 = load(sk, &kernel::SOCK_FAMILY);
    if family == AF_UNIX {
        if length <= FAMILY || read::<u8>(name + u64::from(FAMILY)).ok_or(Fault::AddressUnreadable)? != 0 {
            return Ok(None);
        }
        let object = abstract_name(&mut operation.scratch.object, name, length)?;
        return Ok(Some(operation.judge(Class::Network, object, OwnEntry::default(), network::LISTEN)));
    }
    let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
    let unspecified = if family == AF_INET { AF_INET } else { AF_UNSPEC };
    let endpoint = Endpoint::of_sockaddr(name, length, protocol.into(), unspecified)?;
    Ok(endpoint.map(|endpoint| operation.endpoint(endpoint, network::LISTEN)))
}
