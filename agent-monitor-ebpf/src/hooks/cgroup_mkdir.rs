//! A new cgroup gets the binding of the one that it was made in, before anything can be in it: inheritance costs nothing
//! later and needs no user space.

use crate::emit::{EMPTY, count, fill, next, send};
use crate::kernel::{self, Kernel, load};
use crate::maps::{AGENTS, BINDINGS, BINDINGS_LOST};
use crate::task::{cgroup_id, is_unified};
use agent_monitor_common::binding::{FIRST_KERNEL_AGENT, flags};
use agent_monitor_common::class::{Fault, Reason, Verdict};
use agent_monitor_common::counter::{self, AgentCounters};
use agent_monitor_common::event::{HEADER_BYTES, kind};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
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
    if announce {
        binding.agent = FIRST_KERNEL_AGENT | next(1) as u32;
        binding.flags &= !flags::ANNOUNCE_CHILDREN;
    }
    let counted = !announce || AGENTS.insert(binding.agent, NO_COUNTS, 0).is_ok();
    let made = counted && BINDINGS.insert(id, binding, 0).is_ok();
    if made && !announce {
        return 0;
    }
    let mut event = EMPTY;
    fill(&mut event, HookId::CgroupMkdir as u16, if made { kind::CGROUP_MADE } else { kind::BINDING_LOST }, id);
    event.agent = binding.agent;
    event.slot = binding.slot;
    event.value = parent;
    if !made {
        count(counter::faults(Fault::BindingNotCopied as u8));
        event.verdict = Verdict::Deny as u8;
        event.reason = Reason::Fault as u8;
        event.detail = Fault::BindingNotCopied as u8;
        if let Some(lost) = BINDINGS_LOST.get_ptr_mut(0) {
            // SAFETY: the pointer is to a map value.
            unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(lost, 1) };
        }
    }
    send((&raw mut event).cast(), HEADER_BYTES as u64, binding.agent, !made);
    0
}

static NO_COUNTS: AgentCounters = AgentCounters::NONE;
