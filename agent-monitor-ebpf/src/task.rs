//! The running task and other tasks: who they are, and whose.

use crate::image::Text;
use crate::kernel::{self, Kernel, address, load, offset, opaque, read};
use crate::maps::{BINDINGS, MONITORS};
use crate::scratch::{END, Scratch, clear, reload};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::field::MISSING;
use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_task_pt_regs};

/// The running task.
#[inline(always)]
pub fn current() -> Kernel {
    // SAFETY: the helper takes nothing and gives the running task, which outlives the program.
    unsafe { bpf_get_current_task_btf() as Kernel }
}

// `include/linux/sched.h`
/// A worker of io_uring.
const PF_IO_WORKER: u32 = 0x10;
/// A task that a signal ends.
pub const PF_SIGNALED: u32 = 0x400;

/// Whether the running task is a worker of io_uring.
#[inline(always)]
pub fn is_worker() -> bool {
    load::<u32>(current(), &kernel::TASK_FLAGS) & PF_IO_WORKER != 0
}

/// Whether the kernel acts with other credentials on the task's behalf, as overlayfs does with those of whoever mounted
/// it. A task can bring that about by itself only by access(2), which takes what it may have and only tells what a call would
/// give, and with io_uring: a worker, and the task itself where it goes on with a request that had to wait
/// (`io_issue_sqe()` in `io_uring/io_uring.c`), take on the credentials that the task had when it submitted. So what a
/// worker or a task with a ring does is always judged.
#[inline(always)]
pub fn acts_for_others() -> bool {
    let task = current();
    let rings = offset(&kernel::TASK_IO_URING) != MISSING as usize && load::<u64>(task, &kernel::TASK_IO_URING) != 0;
    !rings && !is_worker() && load::<u64>(task, &kernel::TASK_CRED) != load::<u64>(task, &kernel::TASK_REAL_CRED)
}

/// The number of the system call that the running task is in. A call of a foreign ABI has that ABI's number.
#[inline(always)]
pub fn system_call() -> u32 {
    const X32: u32 = 1 << 30;
    load::<u32>(registers(), &kernel::REGS_SYSCALL) & !X32
}

/// Whether the running task is in the system call with this number and first argument; `foreign` is its number among the
/// 32-bit calls.
#[inline(always)]
pub fn calls(number: u32, foreign: u32, first: u32) -> bool {
    let registers = registers();
    let call = system_call();
    call == number && load::<u32>(registers, &kernel::REGS_FIRST) == first
        || call == foreign && load::<u32>(registers, &kernel::REGS_FIRST_FOREIGN) == first
}

/// The registers that the running task came into the kernel with.
#[inline(always)]
fn registers() -> Kernel {
    // SAFETY: the helper takes a task and gives the address of what is on its kernel stack.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as Kernel }
}

/// The id of a `struct cgroup`.
#[inline(always)]
pub fn cgroup_id(cgroup: Kernel) -> u64 {
    let node: Kernel = load(cgroup, &kernel::CGROUP_KN);
    load(node, &kernel::KERNFS_NODE_ID)
}

/// Whether a `struct cgroup` is of the unified hierarchy, which is the kernel's first (`cgroup_init()` in
/// `kernel/cgroup/cgroup.c`). Each other one (cgroup v1) counts its ids anew, so there are cgroups of the same id.
#[inline(always)]
pub fn is_unified(cgroup: Kernel) -> bool {
    let root: Kernel = load(cgroup, &kernel::CGROUP_ROOT);
    load::<u32>(root, &kernel::HIERARCHY_ID) == 0
}

/// The id of the cgroup that a task is in.
#[inline(always)]
pub fn cgroup_of(task: Kernel) -> u64 {
    let set: Kernel = load(task, &kernel::TASK_CGROUPS);
    cgroup_id(load(set, &kernel::CSS_SET_CGROUP))
}

/// Whether a task is the agent's with this number.
#[inline(always)]
pub fn is_of_agent(task: Kernel, agent: u32) -> bool {
    binds(cgroup_of(task), agent)
}

/// Whether the cgroup with this id is bound to the agent with this number.
#[inline(always)]
fn binds(cgroup: u64, agent: u32) -> bool {
    // SAFETY: the value is read at once.
    match unsafe { BINDINGS.get(cgroup) } {
        Some(binding) => binding.agent == agent,
        None => false,
    }
}

/// Whether the running task's session is led by a process of the agent: its terminal and its process groups are the
/// agent's then. A session whose leader has ended is nobody's.
#[inline(always)]
pub fn session_is_of_agent(agent: u32) -> bool {
    // `enum pid_type` in `include/linux/pid_types.h`.
    const PIDTYPE_SID: u64 = 3;
    // Plain addresses: the tasks of a `struct pid` are in lists, of which that of `PIDTYPE_PID` is the first.
    let signal: u64 = read(address(current(), &kernel::TASK_SIGNAL));
    let session: u64 = read(signal + offset(&kernel::SIGNAL_PIDS) as u64 + 8 * PIDTYPE_SID);
    let first: u64 = read(session + offset(&kernel::PID_TASKS) as u64);
    if first == 0 {
        return false;
    }
    let leader = first.wrapping_sub(offset(&kernel::TASK_PID_LINKS) as u64);
    let set: u64 = read(leader + offset(&kernel::TASK_CGROUPS) as u64);
    let cgroup: u64 = read(set + offset(&kernel::CSS_SET_CGROUP) as u64);
    let node: u64 = read(cgroup + offset(&kernel::CGROUP_KN) as u64);
    binds(read(node + offset(&kernel::KERNFS_NODE_ID) as u64), agent)
}

/// The process id of a task, in the initial namespace.
#[inline(always)]
pub fn process(task: Kernel) -> u32 {
    load(task, &kernel::TASK_TGID)
}

/// Nanoseconds of a clock tick as user space knows it (`USER_HZ` is 100 on every architecture that we build for).
const NS_PER_TICK: u64 = 10_000_000;

/// Whether a task is a process of the monitor. A number that was given to another process since is not taken for it,
/// because the start differs.
#[inline(always)]
pub fn is_monitor(task: Kernel) -> bool {
    let start: u64 = load(leader(task), &kernel::TASK_START);
    // SAFETY: the value is copied at once.
    match unsafe { MONITORS.get(process(task)) } {
        Some(expected) => *expected == start / NS_PER_TICK,
        None => false,
    }
}

/// Whether a `struct pid` at this address is that of a process of the monitor.
#[inline(always)]
pub fn is_monitors(pid: u64) -> bool {
    let first: u64 = if pid == 0 { 0 } else { read(pid + offset(&kernel::PID_TASKS) as u64) };
    if first == 0 {
        return false;
    }
    let task = first.wrapping_sub(offset(&kernel::TASK_PID_LINKS) as u64);
    let start: u64 = read(task + offset(&kernel::TASK_START) as u64);
    let number: u32 = read(task + offset(&kernel::TASK_TGID) as u64);
    // SAFETY: the value is copied at once.
    match unsafe { MONITORS.get(number) } {
        Some(expected) => *expected == start / NS_PER_TICK,
        None => false,
    }
}

/// The first thread of a task's process.
#[inline(always)]
pub fn leader(task: Kernel) -> Kernel {
    load(task, &kernel::TASK_GROUP_LEADER)
}

/// The id of a task in its own, innermost pid namespace.
#[inline(always)]
pub fn id_in_own_namespace(task: Kernel) -> u32 {
    let pid = ids(task);
    id_at(pid, level(pid))
}

/// Whether a `struct pid` is that of the running process or thread.
#[inline(always)]
pub fn is_own_id(pid: u64) -> bool {
    let task = current();
    pid == ids(leader(task)) || pid == ids(task)
}

/// The id of a task in the innermost pid namespace of `other`, which must be the task's or above it.
#[inline(always)]
pub fn id_in_namespace_of(other: Kernel, task: Kernel) -> u32 {
    id_at(ids(task), level(ids(other)))
}

/// The address of a task's `struct pid`, which has its id in each of its pid namespaces, the initial one first.
#[inline(always)]
fn ids(task: Kernel) -> u64 {
    // Plain addresses here and below, because an id is an entry of an array without a length.
    read(address(task, &kernel::TASK_THREAD_PID))
}

/// Of which entry the innermost namespace is.
#[inline(always)]
fn level(pid: u64) -> u32 {
    read(pid + offset(&kernel::PID_LEVEL) as u64)
}

/// The id in the namespace at `level`.
#[inline(always)]
fn id_at(pid: u64, level: u32) -> u32 {
    let entry = pid
        + offset(&kernel::PID_NUMBERS) as u64
        + u64::from(level) * offset(&kernel::UPID_BYTES) as u64
        + offset(&kernel::UPID_NUMBER) as u64;
    read(entry)
}

/// Finds whether `path` is the running process's own entry of `/proc`, by the numbers of its own pid namespace.
// VERIFIER: a loop that it follows step by step makes it check all that comes after once for each length of each number, so
// the digits are read by `bpf_loop`, and what was found goes through the scratch buffer, where it may be anything.
#[inline(always)]
pub fn own_entry(path: Text, scratch: &mut Scratch) -> OwnEntry {
    clear([&mut scratch.own_process, &mut scratch.own_thread]);
    if at(&path, 0, b"/proc/") {
        let task = current();
        skip_number(&path, 6, id_in_own_namespace(leader(task)), &mut scratch.own_process);
        let process = reload(&scratch.own_process);
        if process != 0 && at(&path, process, b"/task/") {
            skip_number(&path, process + 6, id_in_own_namespace(task), &mut scratch.own_thread);
        }
    }
    OwnEntry { process: reload(&scratch.own_process) as u32, thread: reload(&scratch.own_thread) as u32 }
}

/// Whether `word` stands at `index`.
#[inline(always)]
fn at(path: &Text, index: u64, word: &[u8; 6]) -> bool {
    let mut different = 0;
    let mut i = 0;
    while i < 6 {
        different |= path.byte(index + i as u64) ^ word[i];
        i += 1;
    }
    different == 0
}

/// Writes where the decimal `number` that stands at `index` ends, if it is a whole name.
#[inline(always)]
fn skip_number(path: &Text, index: u64, number: u32, end: &mut u64) {
    const DIGITS: u32 = 11;
    let mut digits = *path;
    // SAFETY: the buffer is this program's own.
    let state = unsafe { &mut *path.state };
    state.position = path.start + index;
    clear([&mut state.state, &mut state.result]);
    // SAFETY: the callback gets the address of `digits`, which lives until the helper returns.
    unsafe { bpf_loop(DIGITS, digit as *const () as *mut _, (&raw mut digits).cast(), 0) };
    if reload(&state.result) != 0 && reload(&state.state) == u64::from(number) {
        *end = reload(&state.position) - path.start;
    }
}

/// One digit: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn digit(index: u32, digits: *mut Text) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the buffer is this program's own.
    let (text, state) = unsafe { (&*digits, &mut *(*digits).state) };
    let position = state.position;
    // SAFETY: masked to less than the size of the buffer.
    let byte = unsafe { *text.base.add((opaque(position) & (END - 1)) as usize) };
    if position >= END || byte == b'/' {
        state.result = (index != 0).into();
        return 1;
    }
    if !byte.is_ascii_digit() {
        return 1;
    }
    state.state = state.state * 10 + u64::from(byte - b'0');
    state.position = position + 1;
    0
}
