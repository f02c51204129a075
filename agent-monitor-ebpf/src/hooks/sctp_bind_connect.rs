//! SCTP's own ways to reach and to take addresses, several in one call: options of a socket, which meet no other hook.

use crate::kernel::{Kernel, read};
use crate::operation::{Operation, earlier, guard};
use crate::scratch::{Addresses, reload};
use crate::socket::{AF_INET, AF_INET6, AF_UNSPEC, Sender};
use agent_monitor_common::class::{Class, Fault, Reason, network};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::limit::SCTP_ADDRESSES;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/uapi/linux/in.h`
const IPPROTO_SCTP: u32 = 132;
// `include/uapi/linux/sctp.h`: what adds addresses of one's own; and what the other end asks for, which arrives in
// whatever task is running.
const SCTP_SOCKOPT_BINDX_ADD: u32 = 100;
const SCTP_PARAM_ADD_IP: u32 = 0xc001;
const SCTP_PARAM_SET_PRIMARY: u32 = 0xc004;
// Bytes of a `struct sockaddr_in`, and of a `struct sockaddr_in6`.
const V4_BYTES: u32 = 16;
const V6_BYTES: u32 = 28;

#[lsm(hook = "sctp_bind_connect")]
fn sctp_bind_connect(ctx: LsmContext) -> i32 {
    let option: u32 = ctx.arg(1);
    if option == SCTP_PARAM_ADD_IP || option == SCTP_PARAM_SET_PRIMARY {
        return earlier(ctx.arg(4));
    }
    let access = if option == SCTP_SOCKOPT_BINDX_ADD { network::LISTEN } else { network::CONNECT };
    guard(
        HookId::SctpBindConnect,
        Class::Network,
        ctx.arg(4),
        #[inline(always)]
        |operation| {
            let addresses: Kernel = ctx.arg(2);
            judge_all(operation, ctx.arg(0), addresses as u64, ctx.arg(3), access);
            true
        },
    )
}

/// What each step needs; on the stack of the program that loops.
#[repr(C)]
struct Asked<'a> {
    operation: *mut Operation<'a>,
    sk: Kernel,
    access: u64,
}

/// Judges `access` to each of the addresses that stand one behind the other; what is noted last is the first that is not
/// allowed.
#[inline(always)]
fn judge_all(operation: &mut Operation<'_>, sk: Kernel, addresses: u64, length: u32, access: u16) {
    operation.scratch.addresses = Addresses { next: addresses, left: length.into(), decided: 0 };
    let mut asked = Asked { operation: &raw mut *operation, sk, access: access.into() };
    // SAFETY: the callback gets the address of `asked`, which lives until the helper returns.
    unsafe { bpf_loop(SCTP_ADDRESSES, step as *const () as *mut _, (&raw mut asked).cast(), 0) };
    if reload(&operation.scratch.addresses.decided) == 0 {
        operation.fault(Class::Network, access, Fault::AddressUnreadable);
    }
}

/// One address: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn step(_index: u32, asked: *mut Asked<'_>) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the operation is this program's own.
    let (asked, operation) = unsafe { (&*asked, &mut *(*asked).operation) };
    let Addresses { next, left, .. } = operation.scratch.addresses;
    let family: u16 = read(next);
    let bytes = match family {
        AF_INET => V4_BYTES,
        AF_INET6 => V6_BYTES,
        _ => return 1,
    };
    if left < bytes.into() {
        return 1;
    }
    let left = left - u64::from(bytes);
    operation.scratch.addresses = Addresses { next: next.wrapping_add(bytes.into()), left, decided: 0 };
    let from = Sender::socket(asked.sk);
    operation.judge_sockaddr(next, bytes, IPPROTO_SCTP, AF_UNSPEC, asked.access as u16, from);
    if reload(&operation.scratch.header.reason) == Reason::AllowRule as u8
        && reload(&operation.scratch.addresses.left) != 0
    {
        return 0;
    }
    operation.scratch.addresses.decided = 1;
    1
}
