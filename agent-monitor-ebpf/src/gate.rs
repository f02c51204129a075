//! The gate: whether the running task is an agent's, and under which binding. All that a task pays that is no agent.

use crate::maps::{BINDINGS, SETTINGS};
use agent_monitor_common::binding::Binding;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};

/// Who asks.
pub enum Gate {
    /// Not an agent.
    Outside,
    /// An agent, with the id of its cgroup.
    Agent(Binding, u64),
    /// A task below the agents root whose cgroup could not be bound: it is denied everything.
    Unbound(u64),
}

/// Looks the running task up.
#[inline(always)]
pub fn enter() -> Gate {
    // SAFETY: the helper takes nothing; the value of the map is copied at once.
    let (cgroup, binding) = unsafe {
        let cgroup = bpf_get_current_cgroup_id();
        (cgroup, BINDINGS.get(cgroup).copied())
    };
    match binding {
        Some(binding) => Gate::Agent(binding, cgroup),
        None if lost(cgroup) => Gate::Unbound(cgroup),
        None => Gate::Outside,
    }
}

/// Whether some cgroup could not be bound, and the task is in one below the agents root.
#[inline(always)]
fn lost(cgroup: u64) -> bool {
    let Some(settings) = SETTINGS.get(0) else {
        return false;
    };
    if settings.bindings_lost == 0 || settings.root_id == 0 {
        return false;
    }
    // SAFETY: the helper takes any number.
    cgroup != settings.root_id
        && unsafe { bpf_get_current_ancestor_cgroup_id(settings.root_level as i32) } == settings.root_id
}
