//! Folding: whether a denial repeats one that was told, and counting it then. See `agent_monitor_common::fold`.

use crate::maps::{FOLD_WORDS, FOLDED};
use crate::scratch::{Scratch, reload};
use agent_monitor_common::event::{EventHeader, HEADER_BYTES};
use agent_monitor_common::fold::{BUSY, COUNT, OBJECT_BYTES, TAG, TAGGED, WAYS};
use agent_monitor_common::limit::FOLDS;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg};
use core::mem::offset_of;

/// The key of the tags: random numbers of the loader, so that no agent can make two denials with the same tag.
#[unsafe(no_mangle)]
pub static FOLD_KEY: [u64; 2] = [0; 2];

/// Words of an event's header.
const HEADER_WORDS: u32 = HEADER_BYTES as u32 / 8;
/// Words of the header that make no difference: its number and time, process and thread, when the parent started, names. A
/// process is known by its start.
const LEFT_OUT: u64 = bit(offset_of!(EventHeader, sequence))
    | bit(offset_of!(EventHeader, boot_ns))
    | bit(offset_of!(EventHeader, parent_start_boot_ns))
    | bit(offset_of!(EventHeader, pid))
    | bit(offset_of!(EventHeader, comm))
    | bit(offset_of!(EventHeader, comm) + 8);

/// The word that ends with the user id, and begins with the parent's number, which makes no difference.
const USER_WORD: u32 = offset_of!(EventHeader, uid) as u32 / 8;
const _: () = assert!(offset_of!(EventHeader, parent_pid) + 4 == offset_of!(EventHeader, uid));
const _: () = assert!(offset_of!(EventHeader, uid) % 8 == 4, "the user id is the upper half of its word");

const fn bit(offset: usize) -> u64 {
    1 << (offset / 8)
}

/// What was found of a denial.
pub enum Found {
    /// It repeats one, and was counted.
    Repeat,
    /// It is to be told.
    New,
}

/// Looks whether the event in `scratch`, with so many bytes of objects, repeats one that was told.
#[inline(always)]
pub fn find(scratch: &mut Scratch, bytes: u64) -> Found {
    scratch.fold_slot = u64::MAX;
    if bytes > OBJECT_BYTES as u64 {
        return Found::New;
    }
    hash(scratch, bytes);
    let bucket = reload(&scratch.hash[0]) as u32 & (FOLDS - 1) & !(WAYS - 1);
    let tag = reload(&scratch.hash[0]) & TAG | TAGGED;
    scratch.fold_tag = tag;
    // Which of the free ways is taken changes with time: always the same one would let two that take turns evict each other.
    let wanted = bucket + (scratch.header.boot_ns as u32 & (WAYS - 1));
    let mut way = 0;
    while way < WAYS {
        let slot = bucket + way;
        way += 1;
        let Some(word) = FOLD_WORDS.get_ptr_mut(slot) else { continue };
        // SAFETY: the pointer is to a map value.
        let found = unsafe { core::ptr::read_volatile(word) };
        if found & COUNT == 0 && (slot == wanted || scratch.fold_slot == u64::MAX) {
            scratch.fold_slot = slot.into();
        }
        if found & TAG != tag || found & COUNT == COUNT {
            continue;
        }
        if let Some(event) = FOLDED.get_ptr_mut(slot) {
            // SAFETY: the pointer is to a map value. Before it is counted, so that the daemon finds a time with each count.
            unsafe {
                if found & COUNT == 0 {
                    core::ptr::write_volatile(&raw mut (*event).first_ns, scratch.header.boot_ns);
                }
                core::ptr::write_volatile(&raw mut (*event).last_ns, scratch.header.boot_ns);
            }
        }
        return if exchange(word, found, found + 1) { Found::Repeat } else { Found::New };
    }
    Found::New
}

/// Keeps the event in `scratch`, which was told, so that its repeats are counted, where there is a slot for it.
#[inline(always)]
pub fn keep(scratch: &mut Scratch, bytes: u64) {
    let slot = reload(&scratch.fold_slot) as u32;
    // Of a slot there is none where `find` found none.
    let (Some(word), Some(event)) = (FOLD_WORDS.get_ptr_mut(slot), FOLDED.get_ptr_mut(slot)) else { return };
    // SAFETY: the pointers are to map values; while the word is `BUSY` nobody else writes the event, and nobody reads it.
    unsafe {
        let found = core::ptr::read_volatile(word);
        if found & COUNT != 0 || !exchange(word, found, BUSY) {
            return;
        }
        let bytes = (HEADER_BYTES as u64 + bytes).min((HEADER_BYTES + OBJECT_BYTES) as u64) as u32;
        let into = (&raw mut (*event).header).cast();
        bpf_probe_read_kernel(into, bytes, (&raw const scratch.header).cast());
        atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(word, reload(&scratch.fold_tag));
    }
}

/// Replaces a word, if it is still as it was found.
#[inline(always)]
fn exchange(word: *mut u64, found: u64, by: u64) -> bool {
    // SAFETY: the caller got the pointer from a map.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, found, by).1 }
}

/// Makes `scratch.hash[0]` the hash of all that makes the event what it is: SipHash-1-3, which nobody can foresee without
/// the key (Aumasson and Bernstein, "SipHash: a fast short-input PRF").
// VERIFIER: by `bpf_loop`, which it goes through once; all that changes is in the scratch buffer.
#[inline(always)]
fn hash(scratch: &mut Scratch, bytes: u64) {
    // SAFETY: reads a static; volatile because the loader overwrites it.
    let [first, second] = unsafe { core::ptr::read_volatile(&raw const FOLD_KEY) };
    scratch.hash = [
        first ^ 0x736f_6d65_7073_6575,
        second ^ 0x646f_7261_6e64_6f6d,
        first ^ 0x6c79_6765_6e65_7261,
        second ^ 0x7465_6462_7974_6573,
    ];
    // The last word of the objects is hashed as a whole: zeros behind them.
    // SAFETY: `bytes` is at most OBJECT_BYTES, and the body is longer than the mask.
    unsafe {
        let end = (&raw mut scratch.body).cast::<u8>().add((bytes & 0xff) as usize);
        core::ptr::write_unaligned(end.cast::<u64>(), 0);
    }
    let words = HEADER_WORDS + (bytes as u32).div_ceil(8);
    let mut of: *mut Scratch = scratch;
    // SAFETY: the callback gets the address of `of`, which lives until the helper returns.
    unsafe { bpf_loop(words, step as *const () as *mut _, (&raw mut of).cast(), 0) };
    scratch.hash[2] ^= 0xff;
    let mut round = 0;
    while round < 3 {
        mix(scratch, 0);
        round += 1;
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(
        #[inline(always)]
        |index: usize| reload(&scratch.hash[index]),
    );
    scratch.hash[0] = a ^ b ^ c ^ d;
}

/// One word of the event.
#[inline(never)]
extern "C" fn step(index: u32, of: *mut *mut Scratch) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the buffer is this program's own.
    let scratch = unsafe { &mut **of };
    if index < HEADER_WORDS && LEFT_OUT >> index & 1 != 0 {
        return 0;
    }
    let header = (&raw const scratch.header).cast::<u64>();
    // SAFETY: the body, which is longer than 64 words, stands behind the header.
    let word = unsafe { core::ptr::read_volatile(header.add((index & 63) as usize)) };
    mix(scratch, if index == USER_WORD { word >> 32 } else { word });
    0
}

/// One round of SipHash with one word.
#[inline(never)]
fn mix(scratch: &mut Scratch, word: u64) -> u64 {
    let [mut a, mut b, mut c, mut d] = scratch.hash;
    d ^= word;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    scratch.hash = [a ^ word, b, c, d];
    0
}
