//! Telling: counters and events.

use crate::fold::{self, Found};
use crate::image::Text;
use crate::kernel::{self, address, load, offset, read};
use crate::maps::{AGENTS, COUNTERS, DENIALS, SEQUENCES, TELEMETRY};
use crate::scratch::{Scratch, reload};
use crate::task::{current, process};
use agent_monitor_common::class::{CLASSES, Reason, Verdict};
use agent_monitor_common::counter::{self, AgentCounters};
use agent_monitor_common::event::{EVENT_VERSION, EventHeader, HEADER_BYTES};
use agent_monitor_common::limit::PATH_BYTES;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_ringbuf_output, bpf_ringbuf_reserve, bpf_ringbuf_submit,
};
use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Adds 1 to a counter that others may add to at the same time.
#[inline(always)]
pub fn increment(counter: *mut u64) {
    // SAFETY: the caller got the pointer from a map.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// Adds 1 to a counter of the node.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        increment(counter);
    }
}

/// The next number of a sequence of `SEQUENCES`.
#[inline(always)]
pub fn next(sequence: u32) -> u64 {
    match SEQUENCES.get_ptr_mut(sequence) {
        // SAFETY: the pointer is to a map value.
        Some(counter) => unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, 1) },
        None => 0,
    }
}

/// Adds 1 to a counter of an agent.
#[inline(always)]
fn count_for(agent: u32, field: impl FnOnce(*mut AgentCounters) -> *mut u64) {
    if let Some(counters) = AGENTS.get_ptr_mut(agent) {
        increment(field(counters));
    }
}

/// Counts one verdict.
#[inline(always)]
pub fn count_verdict(agent: u32, class: u8, verdict: Verdict, reason: u8, detail: u8) {
    count(counter::operations(class, verdict));
    let class = (class & 7) as usize;
    if class >= CLASSES {
        return;
    }
    if reason == Reason::Fault as u8 {
        count(counter::faults(detail));
        // SAFETY: the pointer is to a map value.
        count_for(agent, |c| unsafe { &raw mut (*c).faults });
    }
    match verdict {
        Verdict::Allow => {}
        // SAFETY: the pointer is to a map value, the class is less than the length.
        Verdict::Audit => count_for(agent, |c| unsafe { (&raw mut (*c).audited).cast::<u64>().add(class) }),
        Verdict::Deny => {
            count(counter::denials(class as u8, reason));
            // SAFETY: as above.
            count_for(agent, |c| unsafe { (&raw mut (*c).denied).cast::<u64>().add(class) });
        }
    }
}

/// Fills a header with what the running task says about itself; what was judged is left as it is. In place, because the
/// stack is short of room.
#[inline(always)]
pub fn fill(header: &mut EventHeader, hook: u16, kind: u8, cgroup: u64) {
    let task = current();
    // VERIFIER: for each load of a typed pointer it looks up to four times through all types of the kernel for a name that
    // it makes up (`btf_nested_type_is_trusted()` in kernel/bpf/btf.c), and every program has this function. So what lies
    // behind a pointer is read by its address here.
    let number = |of: u64, field: &'static u32| read::<u64>(of + offset(field) as u64);
    let first = number(task as u64, &kernel::TASK_GROUP_LEADER);
    let parent = number(first, &kernel::TASK_PARENT);
    let parent_first = number(parent, &kernel::TASK_GROUP_LEADER);
    let credentials = number(task as u64, &kernel::TASK_CRED);
    header.version = EVENT_VERSION;
    header.kind = kind;
    header.hook = hook;
    header.flags = 0;
    header.object_length = 0;
    header.new_object_length = 0;
    header.sequence = next(0);
    // SAFETY: the helper takes nothing.
    header.boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    header.cgroup = cgroup;
    header.start_boot_ns = number(first, &kernel::TASK_START);
    header.parent_start_boot_ns = number(parent_first, &kernel::TASK_START);
    header.pid = process(task);
    header.tid = load(task, &kernel::TASK_PID);
    header.parent_pid = read(parent + offset(&kernel::TASK_TGID) as u64);
    // Not by the helpers for user and name, which programs on packets lack.
    header.uid = read(credentials + offset(&kernel::CRED_UID) as u64);
    header.comm = read(address(task, &kernel::TASK_COMM));
}

/// A header with nothing in it, to be filled.
pub const EMPTY: EventHeader = EventHeader {
    version: 0,
    kind: 0,
    class: 0,
    hook: 0,
    verdict: 0,
    reason: 0,
    detail: 0,
    flags: 0,
    access: 0,
    errno: 0,
    labels: [0; 3],
    object_length: 0,
    new_object_length: 0,
    agent: 0,
    slot: 0,
    generation: 0,
    sequence: 0,
    boot_ns: 0,
    cgroup: 0,
    start_boot_ns: 0,
    parent_start_boot_ns: 0,
    pid: 0,
    tid: 0,
    parent_pid: 0,
    uid: 0,
    value: 0,
    comm: [0; 16],
};

/// Puts the event of `scratch.header` and its objects into the ring.
#[inline(always)]
pub fn output(scratch: &mut Scratch, deny: bool) {
    let body = (&raw mut scratch.body).cast::<u8>();
    let object = scratch.object().text(scratch.object_start);
    let new_object = scratch.new_object().text(scratch.new_object_start);
    scratch.header.object_length = copy(body, 0, object) as u16;
    let length = u64::from(reload(&scratch.header.object_length)) & PATH_BYTES as u64;
    scratch.header.new_object_length = copy(body, length, new_object) as u16;
    let new_length = u64::from(reload(&scratch.header.new_object_length)) & PATH_BYTES as u64;
    let agent = scratch.header.agent;
    let bytes = length + new_length;
    if deny && matches!(fold::find(scratch, bytes), Found::Repeat) {
        // Told later, with how many there were.
        count_denial(agent, true);
        return;
    }
    let sent = send((&raw mut scratch.header).cast(), HEADER_BYTES as u64 + bytes, agent, deny);
    if deny && sent {
        fold::keep(scratch, bytes);
    }
}

/// Copies an operand behind `at` bytes of the body and gives its length.
#[inline(always)]
fn copy(body: *mut u8, at: u64, text: Text) -> u64 {
    if text.start == 0 {
        return 0;
    }
    let length = text.length() & PATH_BYTES as u64;
    // SAFETY: `at` and `length` are at most PATH_BYTES each; the body has room for two.
    let failed = unsafe {
        bpf_probe_read_kernel(
            body.add((at & PATH_BYTES as u64) as usize).cast(),
            length as u32,
            text.base.add((text.start & PATH_BYTES as u64) as usize).cast(),
        )
    };
    if failed == 0 { length } else { 0 }
}

/// Puts bytes into the ring for denials or the other one, and counts what finds no room. Whether they found it.
#[inline(always)]
pub fn send(event: *mut core::ffi::c_void, bytes: u64, agent: u32, deny: bool) -> bool {
    // SAFETY: the caller gives the start and length of an event in a map value or on the stack.
    let failed = unsafe {
        if deny {
            bpf_ringbuf_output((&raw const DENIALS).cast_mut().cast(), event, bytes, 0)
        } else {
            bpf_ringbuf_output((&raw const TELEMETRY).cast_mut().cast(), event, bytes, 0)
        }
    } != 0;
    if deny {
        count_denial(agent, !failed);
    } else if failed {
        count(counter::TELEMETRY_LOST);
        // SAFETY: the pointer is to a map value.
        count_for(agent, |c| unsafe { &raw mut (*c).telemetry_lost });
    }
    !failed
}

/// Counts a denial that is in the ring or counted as a repeat, or found no room.
#[inline(always)]
fn count_denial(agent: u32, sent: bool) {
    if sent {
        // SAFETY: the pointer is to a map value.
        count_for(agent, |c| unsafe { &raw mut (*c).emitted });
    } else {
        count(counter::DENIALS_LOST);
        // SAFETY: as above.
        count_for(agent, |c| unsafe { &raw mut (*c).lost });
    }
}

/// Puts a denial without objects into the ring, where `fill` writes it: there need be no buffer, and no room on the stack.
#[inline(always)]
pub fn send_denial(agent: u32, fill: impl FnOnce(&mut EventHeader)) {
    // SAFETY: what is reserved is as long as an event without objects, aligned to 8 bytes, and submitted on every way out.
    let sent = unsafe {
        let ring = (&raw const DENIALS).cast_mut().cast();
        let room = bpf_ringbuf_reserve(ring, HEADER_BYTES as u64, 0).cast::<EventHeader>();
        if !room.is_null() {
            room.write(EMPTY);
            fill(&mut *room);
            bpf_ringbuf_submit(room.cast(), 0);
        }
        !room.is_null()
    };
    count_denial(agent, sent);
}

/// Writes a verdict to the log of the kernel programs. The numbers are those of the event.
// VERIFIER: not inlined, because the arguments of aya-log take most of a stack frame.
#[cfg(feature = "log")]
#[inline(never)]
pub fn log(header: &EventHeader) {
    let (hook, class, access) = (reload(&header.hook), reload(&header.class), reload(&header.access));
    let (verdict, reason, detail) = (reload(&header.verdict), reload(&header.reason), reload(&header.detail));
    aya_log_ebpf::info!(
        (),
        "hook {} class {} access {:x} verdict {} reason {} detail {} pid {}",
        hook,
        class,
        access,
        verdict,
        reason,
        detail,
        reload(&header.pid)
    );
}
