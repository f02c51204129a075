//! Scratch buffers. Programs can be preempted in the middle of a decision, and another task may run one on the same CPU,
//! so a CPU has several buffers, each taken by an atomic exchange and given back on every way out.

use crate::image::Text;
use crate::maps::SCRATCH;
use crate::more_rights::Pair;
use crate::mounts::Found;
use crate::path::{DENTRY_BYTES, Place};
use agent_monitor_common::event::EventHeader;
use agent_monitor_common::limit::{NAME_BYTES, PATH_BYTES, SCRATCH_CPUS, SCRATCH_PER_CPU};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use core::intrinsics::{AtomicOrdering, atomic_xchg};

/// Where operands end in their buffer. They are written from here towards the front, leaf first.
pub const END: u64 = PATH_BYTES as u64 + 1;
/// Bytes of an operand's buffer: a name of [`NAME_BYTES`] may be written at any offset below [`END`].
pub const TEXT_BYTES: usize = PATH_BYTES + 1 + NAME_BYTES + 1;

/// What a callback of `bpf_loop` changes.
// VERIFIER: before 6.7 it takes a callback to run exactly once, and derives from that what a number on the stack can be
// after the loop: it then removes code that does run. Numbers in a map value it knows nothing about, so all that a
// callback changes is here, and on the stack there is only what stays the same.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Loop {
    /// Where in the buffer the loop is.
    pub position: u64,
    /// The automaton's state; the value of a number.
    pub state: u64,
    /// The fault of a path walk, or 0 once the root is reached; not 0 once a number is whole.
    pub result: u64,
    /// Path walk: the root of the task, where it ends.
    pub root: Place,
    /// Path walk: the object, where it begins.
    pub start: Place,
    /// Path walk: the first bytes of `dentry`.
    pub head: [u64; DENTRY_BYTES / 8],
    /// Path walk: the `struct dentry`.
    pub dentry: u64,
    /// Path walk: the `struct vfsmount`.
    pub mount: u64,
    /// Path walk: the top of `mount`.
    pub mount_root: u64,
    /// Path walk: not 0 on the second way up, which checks the first.
    pub checks: u64,
    /// Path walk: a number made of all levels that were gone through.
    pub seen: u64,
    /// Path walk: the same of the first way up.
    pub expected: u64,
}

/// Socket addresses that stand one behind the other, while they are judged.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Addresses {
    /// Where the next one is.
    pub next: u64,
    /// Bytes from there on.
    pub left: u64,
    /// Not 0 once what was noted holds: for the last address, or for one that is not allowed.
    pub decided: u64,
}

/// One buffer.
#[repr(C)]
pub struct Scratch {
    /// 1 while a program has it. 64 bits wide, because the instruction set has no narrower atomic exchange.
    pub busy: u64,
    /// Which hook asks, and bits about the agent; see `operation.rs`.
    pub about: u64,
    /// The cgroup of the task.
    pub cgroup: u64,
    /// The agent's number in the upper half, its slot in the lower.
    pub agent_and_slot: u64,
    /// Where the object starts in its buffer; 0 for none.
    pub object_start: u64,
    /// Where the new object starts in its buffer; 0 for none.
    pub new_object_start: u64,
    /// Length of the own process's, and the own thread's entry of `/proc` that the object is in; 0 for none.
    pub own_process: u64,
    /// See above.
    pub own_thread: u64,
    /// Not 0 where the kernel only looked whether it would be granted: neither counted nor told.
    pub silent: u64,
    /// An address that is put here to be read again as a number.
    // VERIFIER: it lets nobody calculate with a pointer to a socket.
    pub address: u64,
    /// What a search through mounts found, see `mounts.rs`.
    pub found: Found,
    /// The names of a rename or link, see `more_rights.rs`.
    pub pair: Pair,
    /// What is left of the addresses of one call.
    pub addresses: Addresses,
    /// State of the loop that runs, if one does.
    pub state: Loop,
    /// State of the hash that a repeat is found by; in the end the hash is the first of it.
    pub hash: [u64; 4],
    /// The tag that the hash gives.
    pub fold_tag: u64,
    /// A slot for it that counts nothing; all ones for none.
    pub fold_slot: u64,
    /// The operand.
    pub object: [u8; TEXT_BYTES],
    /// The second operand of a rename or link.
    pub new_object: [u8; TEXT_BYTES],
    /// The event that is put together.
    pub header: EventHeader,
    /// The objects of the event.
    pub body: [u8; 2 * (PATH_BYTES + 1)],
}

/// The buffer of one operand, and the state of loops over it.
#[derive(Clone, Copy)]
pub struct Buffer {
    /// Its first byte.
    pub base: *mut u8,
    /// State of a loop.
    pub state: *mut Loop,
}

impl Buffer {
    /// The operand from `start` to [`END`].
    #[inline(always)]
    pub fn text(self, start: u64) -> Text {
        Text { base: self.base, start, state: self.state }
    }

    /// Writes a byte.
    #[inline(always)]
    pub fn put(self, at: usize, byte: u8) {
        // SAFETY: the verifier checks that `at` is in the buffer.
        unsafe { *self.base.add(at) = byte };
    }
}

impl Scratch {
    /// The object's buffer.
    #[inline(always)]
    pub fn object(&mut self) -> Buffer {
        Buffer { base: (&raw mut self.object).cast(), state: &raw mut self.state }
    }

    /// The new object's buffer.
    #[inline(always)]
    pub fn new_object(&mut self) -> Buffer {
        Buffer { base: (&raw mut self.new_object).cast(), state: &raw mut self.state }
    }
}

/// A buffer of this CPU that nobody has; `None` where all are taken.
#[inline(always)]
pub fn take() -> Option<&'static mut Scratch> {
    // SAFETY: no argument, no effect.
    let cpu = unsafe { bpf_get_smp_processor_id() } & (SCRATCH_CPUS - 1);
    let mut i = 0;
    while i < SCRATCH_PER_CPU {
        if let Some(scratch) = SCRATCH.get_ptr_mut(cpu * SCRATCH_PER_CPU + i) {
            // SAFETY: the pointer is to a map value; whoever reads 0 from `busy` is the only one that has the buffer.
            unsafe {
                if atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*scratch).busy, 1) == 0 {
                    return Some(&mut *scratch);
                }
            }
        }
        i += 1;
    }
    None
}

/// Reads what was just written.
// VERIFIER: it keeps apart the paths that put different numbers into a register, and checks all that follows once for
// each; what comes out of a map value may be any number, so after this the paths are one.
#[inline(always)]
pub fn reload<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(field) }
}

/// Sets numbers to 0, each by an instruction of its own: what LLVM makes of several stores is a call of a loop over bytes.
#[inline(always)]
pub fn clear<T: From<u8>, const N: usize>(fields: [&mut T; N]) {
    // SAFETY: a reference is valid for writes.
    fields.into_iter().for_each(|field| unsafe { core::ptr::write_volatile(field, T::from(0)) });
}

/// Gives a buffer back.
#[inline(always)]
pub fn give(scratch: &mut Scratch) {
    // SAFETY: the caller has the buffer and does not use it after this.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut scratch.busy, 0) };
}
