//! A new cgroup gets the binding of the one that it was made in, before anything can be in it: inheritance costs nothing
//! later and needs no user space.

use crate::emit::{EMPTY, count, fill, next, send};
use crate::kernel::{self, Kernel, load};
use crate::maps::{AGENTS, BINDINGS, BINDINGS_LOST};
use crate::task::{cgroup_id, is_unified};
use agent_monitor_common::binding::{FIRST_KERNEL_AGENT, flags};
use agent_monitor_common::class::{Fault, Reason, Verdict};
use agent_monitor_common::counter::{self, AgentCounters};
use agent_monitor_common::event::{EventHeader, HEADER_BYTES, kind};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::limit::NAME_BYTES;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Kernel = ctx.arg(0);
    if !is_unified(cgroup) {
        return 0;
    }
    let state: Kernel = load(cgroup, &kernel::CGROUP_PARENT);
    let parent = cgroup_id(load(state, &kernel::CSS_CGROUP));
    // SAFETY: the value is copied at once.
    let Some(mut binding) = (unsafe { BINDINGS.get(parent).copied() }) else {
        return 0;
    };
    let id = cgroup_id(cgroup);
    // The program of another build, which is taking over or is taken over from, was faster.
    // SAFETY: the value is not used.
    if unsafe { BINDINGS.get(id) }.is_some() {
        return 0;
    }
    let announce = binding.flags & flags::ANNOUNCE_CHILDREN != 0;
    let mut counted = !announce;
    if announce {
        binding.flags &= !flags::ANNOUNCE_CHILDREN;
        let mut tries = 0;
        while !counted && tries < TRIES {
            binding.agent = FIRST_KERNEL_AGENT | next(1) as u32;
            counted = AGENTS.insert(binding.agent, NO_COUNTS, BPF_NOEXIST).is_ok();
            tries += 1;
        }
    }
    let made = counted && BINDINGS.insert(id, binding, 0).is_ok();
    if made && !announce {
        return 0;
    }
    let mut named = Named { event: EMPTY, name: [0; NAME_BYTES + 1] };
    let event = &mut named.event;
    fill(event, HookId::CgroupMkdir as u16, if made { kind::CGROUP_MADE } else { kind::BINDING_LOST }, id);
    event.agent = binding.agent;
    event.slot = binding.slot;
    event.value = parent;
    let mut length = 0;
    if made {
        length = read_name(cgroup, &mut named.name);
        event.object_length = length as u16;
    } else {
        if announce && counted {
            let _ = AGENTS.remove(binding.agent);
        }
        count(counter::faults(Fault::BindingNotCopied as u8));
        event.verdict = Verdict::Deny as u8;
        event.reason = Reason::Fault as u8;
        event.detail = Fault::BindingNotCopied as u8;
        if let Some(lost) = BINDINGS_LOST.get_ptr_mut(0) {
            // SAFETY: the pointer is to a map value.
            unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(lost, 1) };
        }
    }
    let bytes = HEADER_BYTES as u64 + (length & NAME_BYTES as u64);
    // What could not be bound is no denial of the agent in whose cgroup it was made.
    send((&raw mut named).cast(), bytes, if made { binding.agent } else { 0 }, !made);
    0
}

/// How many numbers are tried, each the next one: where an agent has the number still it was given before all of them were
/// given once.
const TRIES: u32 = 4;
/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;

/// An event with the name of a cgroup.
#[repr(C)]
struct Named {
    event: EventHeader,
    name: [u8; NAME_BYTES + 1],
}

/// Reads the name of a cgroup and gives its length; 0 where it can't be read. Nobody changes it meanwhile: cgroups of the
/// unified hierarchy are not renamed (`cgroup1_rename()` in `kernel/cgroup/cgroup-v1.c` is the other hierarchies').
#[inline(always)]
fn read_name(cgroup: Kernel, name: &mut [u8; NAME_BYTES + 1]) -> u64 {
    let node: Kernel = load(cgroup, &kernel::CGROUP_KN);
    let from = load::<u64>(node, &kernel::KERNFS_NODE_NAME) as *const c_void;
    // SAFETY: the helper writes at most as many bytes as `name` has, and never faults.
    let length = unsafe { bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), name.len() as u32, from) };
    // The NUL is one of them.
    if length > 0 { length as u64 - 1 } else { 0 }
}

static NO_COUNTS: AgentCounters = AgentCounters::NONE;
