//! Packets that leave with a source route (RFC 791) or a routing header (RFC 8200), which go to another address than the
//! one that was judged. `socket_setsockopt` and `socket_sendmsg` deny what asks for them; but for the second and later
//! messages of one `sendmmsg` to the same address the kernel asks no LSM hook (`sock_sendmsg_nosec` in `net/socket.c`).

use crate::gate;
use crate::operation::{Operation, guard_at};
use crate::scratch::{Loop, reload};
use agent_monitor_common::class::{Builtin, Class, network};
use agent_monitor_common::hook::HookId;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

const DROP: i32 = 0;
const PASS: i32 = 1;

// Bytes of a header without options.
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
// `include/uapi/linux/in6.h`: `IPPROTO_HOPOPTS`, `IPPROTO_ROUTING`, `IPPROTO_DSTOPTS`.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

// What [`Loop::result`] says: there is a route, or it can't be told; there is none.
const ROUTED: u64 = 0;
const CLEAN: u64 = 1;

#[cgroup_skb(egress)]
fn skb_egress(ctx: SkBuffContext) -> i32 {
    // Of IPv4 the length of the header in words of 4 bytes, of IPv6 the kind of the header after the first.
    // SAFETY: the verifier checks each access against the end of the data.
    let after = unsafe {
        let (data, end) = ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize);
        if data + V4_BYTES > end {
            return PASS;
        }
        let data = data as *const u8;
        let first = *data;
        if first >> 4 == 4 { first & 15 } else { *data.add(6) }
    };
    let v4 = is_v4(&ctx);
    // Almost every packet leaves here.
    if v4 && after as usize * 4 <= V4_BYTES || !v4 && !matches!(after, HOP_BY_HOP | ROUTING | DESTINATION) {
        return PASS;
    }
    let denied = guard_at(
        gate::enter_without_helper(),
        HookId::SkbEgress,
        Class::Network,
        #[inline(always)]
        |operation| {
            if !routed(operation, ctx.skb.skb, v4, after) {
                return false;
            }
            operation.builtin(Class::Network, network::SEND, Builtin::SourceRoute);
            true
        },
    );
    if denied == 0 { PASS } else { DROP }
}

/// Whether it is an IPv4 packet.
#[inline(always)]
fn is_v4(ctx: &SkBuffContext) -> bool {
    /// `include/uapi/linux/if_ether.h`, as it stands in memory.
    const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).protocol == ETH_P_IP }
}

/// What the callbacks are given.
struct Walk {
    packet: *mut __sk_buff,
    state: *mut Loop,
}

/// Whether the options of an IPv4 packet, whose header is `after` words long, or the headers of an IPv6 packet, of which
/// the one after the first is an `after`, set a route.
#[inline(always)]
fn routed(operation: &mut Operation<'_>, packet: *mut __sk_buff, v4: bool, after: u8) -> bool {
    /// As many as there is room for (40 bytes), and one step to see the end.
    const OPTIONS: u32 = 41;
    /// More than the kernel puts before the data, which is at most one of each kind and two of destination options
    /// (`ipv6_push_nfrag_opts()` and `ipv6_push_frag_opts()` in `net/ipv6/exthdrs.c`).
    const HEADERS: u32 = 8;
    let state = &raw mut operation.scratch.state;
    let mut walk = Walk { packet, state };
    // SAFETY: the buffer is this program's own; the callbacks get the address of `walk`, which lives until the helper
    // returns.
    unsafe {
        (*state).result = ROUTED;
        (*state).position = if v4 { V4_BYTES } else { V6_BYTES } as u64;
        (*state).state = after.into();
        let walk = (&raw mut walk).cast();
        if v4 {
            bpf_loop(OPTIONS, option as *const () as *mut _, walk, 0);
        } else {
            bpf_loop(HEADERS, header as *const () as *mut _, walk, 0);
        }
        reload(&(*state).result) == ROUTED
    }
}

/// One option of an IPv4 packet (`include/uapi/linux/ip.h`): 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn option(_: u32, walk: *mut Walk) -> i64 {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;
    // SAFETY: `bpf_loop` passes on what it was given, and the buffer is this program's own.
    let (packet, state) = unsafe { ((*walk).packet, &mut *(*walk).state) };
    let kind = byte(packet, state.position);
    if state.position >= state.state * 4 || kind == Some(END) {
        state.result = CLEAN;
        return 1;
    }
    match kind {
        None | Some(LOOSE_ROUTE | STRICT_ROUTE) => return 1,
        Some(NO_OPERATION) => state.position += 1,
        Some(_) => match byte(packet, state.position + 1) {
            None | Some(0 | 1) => return 1,
            Some(length) => state.position += u64::from(length),
        },
    }
    0
}

/// One header of an IPv6 packet: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn header(_: u32, walk: *mut Walk) -> i64 {
    // SAFETY: as above.
    let (packet, state) = unsafe { ((*walk).packet, &mut *(*walk).state) };
    let kind = state.state;
    if kind == u64::from(ROUTING) {
        return 1;
    }
    if kind != u64::from(HOP_BY_HOP) && kind != u64::from(DESTINATION) {
        state.result = CLEAN;
        return 1;
    }
    let (Some(next), Some(length)) = (byte(packet, state.position), byte(packet, state.position + 1)) else {
        return 1;
    };
    state.state = next.into();
    state.position += (u64::from(length) + 1) * 8;
    0
}

/// A byte of the packet; `None` behind its end.
#[inline(always)]
fn byte(packet: *mut __sk_buff, at: u64) -> Option<u8> {
    let mut byte = 0_u8;
    // SAFETY: the helper writes one byte, or fails.
    let failed = unsafe { bpf_skb_load_bytes(packet.cast(), at as u32, (&raw mut byte).cast(), 1) };
    if failed == 0 { Some(byte) } else { None }
}
