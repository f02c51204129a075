//! Folding: a denial that was told is told again with the number of its repeats, and not once for each.
//!
//! A slot is a word (map `FOLD_WORDS`) and the event that was told (`FOLDED`). The word has a tag, which is made of all that
//! makes two denials the same, and counts the repeats since the daemon last took them. It changes only at once, on both
//! sides, so that no repeat is counted twice or not at all:
//!
//! - a program that denies what the tag stands for adds 1;
//! - a slot that counts nothing may be given to another tag: the word is [`BUSY`] while its event is written;
//! - the daemon takes the count and leaves the tag.

use crate::event::EventHeader;

/// The bits of a word that count.
pub const COUNT: u64 = (1 << 24) - 1;
/// The bits of a word that are the tag.
pub const TAG: u64 = !COUNT;
/// Set in each tag, so that none is 0.
pub const TAGGED: u64 = 1 << 63;
/// The word of a slot whose event is being written: no tag, and a count that lets nobody take it.
pub const BUSY: u64 = COUNT;

/// Slots in which one tag may be: those with the same number but for the lowest bits.
pub const WAYS: u32 = 4;

/// Most bytes of the objects of an event that is folded. Longer ones are told each time.
pub const OBJECT_BYTES: usize = 240;

/// The event of a slot.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Folded {
    /// When the first of the repeats that are counted was, on the boot clock.
    pub first_ns: u64,
    /// When the last was.
    pub last_ns: u64,
    /// The event that was told.
    pub header: EventHeader,
    /// Its object, and the new object behind it.
    pub objects: [u8; OBJECT_BYTES],
}

/// Where the event is in a [`Folded`].
pub const EVENT_OFFSET: usize = core::mem::offset_of!(Folded, header);

const _: () = {
    assert!(EVENT_OFFSET == 16 && size_of::<Folded>() == EVENT_OFFSET + crate::event::HEADER_BYTES + OBJECT_BYTES);
    assert!(crate::limit::FOLDS.is_power_of_two() && WAYS.is_power_of_two());
};
