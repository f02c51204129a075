//! The gate: whether the running task is an agent's, and under which binding. All that a task pays that is no agent.

use crate::maps::{BINDINGS, BINDINGS_LOST};
use crate::task::{cgroup_of, current};
use agent_monitor_common::binding::Binding;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_loop};

/// Who asks.
pub enum Gate {
    /// Not an agent.
    Outside,
    /// An agent, with the id of its cgroup.
    Agent(Binding, u64),
    /// A task below a bound cgroup whose own could not be bound: it is denied everything.
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
        None if lost() => Gate::Unbound(cgroup),
        None => Gate::Outside,
    }
}

/// Looks the running task up from a program whose type has no helper for the cgroup. What could not be bound is outside:
/// for what such a program sees, the task was denied before.
#[inline(always)]
pub fn enter_without_helper() -> Gate {
    let cgroup = cgroup_of(current());
    // SAFETY: the value of the map is copied at once.
    match unsafe { BINDINGS.get(cgroup).copied() } {
        Some(binding) => Gate::Agent(binding, cgroup),
        None => Gate::Outside,
    }
}

/// Whether some cgroup could not be bound, and the task is in one that may be it: below a cgroup with a binding.
#[inline(always)]
fn lost() -> bool {
    match BINDINGS_LOST.get(0) {
        Some(lost) => *lost != 0 && below_a_binding(),
        None => false,
    }
}

/// Whether a cgroup above the task's has a binding.
#[inline(never)]
fn below_a_binding() -> bool {
    /// More levels than a path of cgroups can have names: what lies deeper counts as below a binding.
    const LEVELS: u32 = 4096;
    let mut found: u64 = 1;
    // SAFETY: the callback gets the address of `found`, which lives until the helper returns.
    unsafe { bpf_loop(LEVELS, level as *const () as *mut _, (&raw mut found).cast(), 0) };
    found != 0
}

/// One level, from the root on: 1 ends the loop.
#[inline(never)]
extern "C" fn level(index: u32, found: *mut u64) -> i64 {
    // SAFETY: the helper takes any number, and gives 0 below the task's own cgroup; the value of the map is not used;
    // `bpf_loop` passes on what it was given.
    unsafe {
        let cgroup = bpf_get_current_ancestor_cgroup_id(index as i32);
        if cgroup == 0 {
            *found = 0;
            return 1;
        }
        BINDINGS.get(cgroup).is_some().into()
    }
}
