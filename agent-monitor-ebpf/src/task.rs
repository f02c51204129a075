//! The running task and other tasks: who they are, and whose.

use crate::image::Text;
use crate::kernel::{self, Kernel, address, load, offset, read};
use crate::maps::{BINDINGS, MONITORS};
use agent_monitor_common::binding::Binding;
use agent_monitor_common::decide::OwnEntry;
use aya_ebpf::helpers::bpf_get_current_task_btf;

/// The running task.
#[inline(always)]
pub fn current() -> Kernel {
    // SAFETY: the helper takes nothing and gives the running task, which outlives the program.
    unsafe { bpf_get_current_task_btf() as Kernel }
}

/// The id of a `struct cgroup`.
#[inline(always)]
pub fn cgroup_id(cgroup: Kernel) -> u64 {
    let node: Kernel = load(cgroup, &kernel::CGROUP_KN);
    load(node, &kernel::KERNFS_NODE_ID)
}

/// The binding of a task's cgroup; `None` where it is not an agent's.
#[inline(always)]
pub fn binding_of(task: Kernel) -> Option<Binding> {
    let set: Kernel = load(task, &kernel::TASK_CGROUPS);
    let cgroup: Kernel = load(set, &kernel::CSS_SET_CGROUP);
    // SAFETY: the value is copied at once.
    unsafe { BINDINGS.get(cgroup_id(cgroup)).copied() }
}

/// The process id of a task, in the initial namespace.
#[inline(always)]
pub fn process(task: Kernel) -> u32 {
    load(task, &kernel::TASK_TGID)
}

/// Whether a task is a process of the monitor. A number that was given to another process since is not taken for it,
/// because the start differs.
#[inline(always)]
pub fn is_monitor(task: Kernel) -> bool {
    let leader: Kernel = load(task, &kernel::TASK_GROUP_LEADER);
    let start: u64 = load(leader, &kernel::TASK_START);
    // SAFETY: the value is copied at once.
    unsafe { MONITORS.get(process(task)).copied() == Some(start) }
}

/// The id of a task in its own, innermost pid namespace.
#[inline(always)]
fn id_in_own_namespace(task: Kernel) -> u32 {
    let pid: Kernel = load(task, &kernel::TASK_THREAD_PID);
    let level: u32 = load(pid, &kernel::PID_LEVEL);
    let entry = address(pid, &kernel::PID_NUMBERS)
        + u64::from(level) * offset(&kernel::UPID_BYTES) as u64
        + offset(&kernel::UPID_NUMBER) as u64;
    read(entry).unwrap_or(0)
}

/// Whether `path` is the running process's own entry of `/proc`, by the numbers of its own pid namespace.
#[inline(always)]
pub fn own_entry(path: &Text) -> OwnEntry {
    let mut own = OwnEntry::default();
    if !at(path, 0, b"/proc/") {
        return own;
    }
    let task = current();
    let leader: Kernel = load(task, &kernel::TASK_GROUP_LEADER);
    let length = path.length();
    let end = skip_number(path, 6, length, id_in_own_namespace(leader));
    if end == 0 {
        return own;
    }
    own.process = end as u32;
    if at(path, end, b"/task/") {
        own.thread = skip_number(path, end + 6, length, id_in_own_namespace(task)) as u32;
    }
    own
}

/// Whether `word` stands at `index`.
#[inline(always)]
fn at(path: &Text, index: u64, word: &[u8; 6]) -> bool {
    let mut i = 0;
    while i < 6 {
        if path.byte(index + i as u64) != word[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Where the decimal `number` that stands at `index` ends, if it is a whole name; else 0.
#[inline(always)]
fn skip_number(path: &Text, mut index: u64, length: u64, number: u32) -> u64 {
    const DIGITS: u32 = 10;
    let mut value = 0u32;
    let mut i = 0;
    while i < DIGITS {
        let byte = path.byte(index);
        if index >= length || !byte.is_ascii_digit() {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
        index += 1;
        i += 1;
    }
    let whole = index == length || path.byte(index) == b'/';
    if i != 0 && whole && value == number { index } else { 0 }
}
