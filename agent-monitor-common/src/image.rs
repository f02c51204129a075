//! The image: a compiled policy as bytes. The compiler writes it, the kernel programs and `explain` read it, both through
//! [`ReadImage`], whose reads can't leave the image.
//!
//! All numbers are little endian and naturally aligned. Offsets count from the start of the image.
//!
//! | at | size | what |
//! | --- | --- | --- |
//! | 0 | 4 | [`MAGIC`] |
//! | 4 | 4 | [`VERSION`] of this layout |
//! | 8 | 8 | generation: counts up with each load of the policy |
//! | 16 | 4 | bytes used |
//! | 20 | 4 | `OnFault` |
//! | 24 | 4 | number of labels |
//! | 28 | 4 | offset of the labels: a `u32` each, see [`label_word`] |
//! | 32 | 4 | offset of the notes |
//! | 36 | 4 | bytes of the notes: what only user space needs (names, rules of each label) |
//! | 40 | 6 x 32 | an automaton for each class, see [`Automaton`] |
//! | 232 | 4 | system calls: bits of [`syscalls`] |
//! | 256 | | tables |

use crate::class::Class;

/// First four bytes of each image: `AGIM`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"AGIM");
/// Version of the layout; a reader refuses any other.
pub const VERSION: u32 = 1;
/// Bytes before the tables.
pub const HEADER_BYTES: u32 = 256;

/// Offsets of the header's fields.
pub mod at {
    /// `u32`: [`super::MAGIC`].
    pub const MAGIC: u32 = 0;
    /// `u32`: [`super::VERSION`].
    pub const VERSION: u32 = 4;
    /// `u64`: generation.
    pub const GENERATION: u32 = 8;
    /// `u32`: bytes used.
    pub const LENGTH: u32 = 16;
    /// `u32`: what an operation gets that cannot be decided.
    pub const ON_FAULT: u32 = 20;
    /// `u32`: number of labels.
    pub const LABEL_COUNT: u32 = 24;
    /// `u32`: offset of the labels.
    pub const LABELS: u32 = 28;
    /// `u32`: offset of the notes.
    pub const NOTES: u32 = 32;
    /// `u32`: bytes of the notes.
    pub const NOTES_LENGTH: u32 = 36;
    /// First automaton.
    pub const AUTOMATA: u32 = 40;
    /// `u32`: bits of [`super::syscalls`].
    pub const SYSCALLS: u32 = AUTOMATA + crate::class::CLASSES as u32 * super::AUTOMATON_BYTES;
}

/// Bits at [`at::SYSCALLS`].
pub mod syscalls {
    /// A document of the policy has rules for system calls: what starts a program must carry a filter.
    pub const RULES: u32 = 1;
    /// Each call is looked at, and what is not allowed ends the process.
    pub const KILL: u32 = 1 << 1;
}

const _: () = assert!(at::SYSCALLS + 4 <= HEADER_BYTES);

/// Bytes of one automaton's entry in the header.
pub const AUTOMATON_BYTES: u32 = 32;

/// Bit of a label's word that says: a built-in rule denies, whatever the access and the mode.
pub const BUILTIN: u32 = 1 << 31;

/// A label as the kernel sees it: which accesses the matching rules allow (bits 0 to 14), which they deny (bits 16 to
/// 30), and whether a built-in rule matches (bit 31). Label 0 is "no rule matches" and its word is 0.
#[must_use]
pub const fn label_word(allow: u16, deny: u16, builtin: bool) -> u32 {
    (allow as u32 & 0x7fff) | ((deny as u32 & 0x7fff) << 16) | if builtin { BUILTIN } else { 0 }
}

/// Where the automaton of one class lies in its image. States are numbered from 0; state 0 is dead (it leads to itself
/// and has label 0). The next state of `state` at `byte` is the `u16` at
/// `rows + (state * stride + class_of[byte]) * 2`, where `class_of` are the 256 bytes at `classes`; the label of `state`
/// is the `u16` at `accept + state * 2`, and its rights class the `u16` at `accept + (states + state) * 2`.
///
/// States with the same rights class give the same rights to everything that may follow, though perhaps by other rules:
/// the machine is minimal over labels, and rights classes are what it would be if only the effective rights counted.
///
/// The entry in the header is these eight numbers as `u32`, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Automaton {
    /// Offset of the 256 byte classes.
    pub classes: u32,
    /// Offset of the transition rows.
    pub rows: u32,
    /// Offset of the labels of the states.
    pub accept: u32,
    /// Byte classes, so columns of a row.
    pub stride: u32,
    /// The state before the first byte.
    pub start: u32,
    /// file, exec: the state after `/proc/self`; network: the state after [`crate::name::UNIX`], where a unix path starts.
    pub prefix: u32,
    /// file, exec: the state after `/proc/thread-self`.
    pub thread_prefix: u32,
    /// Number of states.
    pub states: u32,
}

/// Bounded reads from an image. Offsets past its end are wrapped or read as 0, never an error and never elsewhere: a
/// valid image has none, and user space checks images before it loads them.
pub trait ReadImage {
    /// The byte at `offset`.
    fn byte(&self, offset: u32) -> u8;
    /// The aligned number at `offset`.
    fn half(&self, offset: u32) -> u16;
    /// The aligned number at `offset`.
    fn word(&self, offset: u32) -> u32;

    /// The automaton of `class`.
    #[inline(always)]
    fn automaton(&self, class: Class) -> Automaton {
        let entry = at::AUTOMATA + class as u32 * AUTOMATON_BYTES;
        Automaton {
            classes: self.word(entry),
            rows: self.word(entry + 4),
            accept: self.word(entry + 8),
            stride: self.word(entry + 12),
            start: self.word(entry + 16),
            prefix: self.word(entry + 20),
            thread_prefix: self.word(entry + 24),
            states: self.word(entry + 28),
        }
    }

    /// The state that follows `state` at `byte`.
    #[inline(always)]
    fn step(&self, automaton: &Automaton, state: u32, byte: u8) -> u32 {
        let column = self.byte(automaton.classes.wrapping_add(byte as u32)) as u32;
        let cell = state.wrapping_mul(automaton.stride).wrapping_add(column);
        self.half(automaton.rows.wrapping_add(cell.wrapping_mul(2))) as u32
    }

    /// The label of `state`.
    #[inline(always)]
    fn label(&self, automaton: &Automaton, state: u32) -> u16 {
        self.half(automaton.accept.wrapping_add(state.wrapping_mul(2)))
    }

    /// The rights class of `state`, see [`Automaton`].
    #[inline(always)]
    fn rights_class(&self, automaton: &Automaton, state: u32) -> u16 {
        self.label(automaton, automaton.states.wrapping_add(state))
    }

    /// The word of `label`, see [`label_word`].
    #[inline(always)]
    fn label_word(&self, label: u16) -> u32 {
        self.word(self.word(at::LABELS).wrapping_add((label as u32).wrapping_mul(4)))
    }
}

/// An image in memory, read with bounds: what lies past the end reads as 0.
impl ReadImage for [u8] {
    fn byte(&self, offset: u32) -> u8 {
        self.get(offset as usize).copied().unwrap_or(0)
    }
    fn half(&self, offset: u32) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset.wrapping_add(1))])
    }
    fn word(&self, offset: u32) -> u32 {
        u32::from(self.half(offset)) | u32::from(self.half(offset.wrapping_add(2))) << 16
    }
}
