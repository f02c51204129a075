//! The binding of a cgroup ends with it.

use crate::emit::{EMPTY, fill, send};
use crate::kernel::Kernel;
use crate::maps::BINDINGS;
use crate::task::{cgroup_id, is_unified};
use agent_monitor_common::event::{HEADER_BYTES, kind};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

#[btf_tracepoint(function = "cgroup_release")]
fn cgroup_release(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Kernel = ctx.arg(0);
    if !is_unified(cgroup) {
        return 0;
    }
    let id = cgroup_id(cgroup);
    // SAFETY: the value is copied at once.
    let Some(binding) = (unsafe { BINDINGS.get(id).copied() }) else {
        return 0;
    };
    // Nothing else removes it meanwhile but the daemon, which does the same.
    let _ = BINDINGS.remove(id);
    let mut event = EMPTY;
    fill(&mut event, HookId::CgroupRelease as u16, kind::CGROUP_RELEASED, id);
    event.agent = binding.agent;
    event.slot = binding.slot;
    send((&raw mut event).cast(), HEADER_BYTES as u64, binding.agent, false);
    0
}
