//! The binding of a cgroup ends with its directory: no task is in the cgroup then, and none can come
//! (`cgroup_destroy_locked()` in `kernel/cgroup/cgroup.c`), and whoever asks for a binding asks for that of a task's cgroup.
//! What keeps the cgroup itself for longer, memory that is charged to it or a socket, asks for none.

use crate::emit::{EMPTY, fill, send};
use crate::kernel::Kernel;
use crate::maps::BINDINGS;
use crate::task::{cgroup_id, is_unified};
use agent_monitor_common::event::{HEADER_BYTES, kind};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    unbind(ctx.arg(0), HookId::CgroupRmdir)
}

/// Removes the binding of a cgroup, if it has one, and tells that it is gone.
#[inline(always)]
pub fn unbind(cgroup: Kernel, hook: HookId) -> i32 {
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
    fill(&mut event, hook as u16, kind::CGROUP_RELEASED, id);
    event.agent = binding.agent;
    event.slot = binding.slot;
    send((&raw mut event).cast(), HEADER_BYTES as u64, binding.agent, false);
    0
}
