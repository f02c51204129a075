//! `decide`: the one procedure that judges an operation, in the kernel, in tests and in `explain`.
//!
//! A matching deny wins; else a matching allow; else deny. Order never matters.

use crate::class::{Class, Reason};
use crate::image::{Automaton, BUILTIN, ReadImage};

/// The bytes of an operation, which know how to run themselves through an automaton: a plain loop on the host,
/// `bpf_loop` over a scratch buffer in the kernel.
pub trait Operand {
    /// The state after the bytes from `from` to the end, beginning in `state`.
    fn walk<I: ReadImage + ?Sized>(&self, image: &I, automaton: &Automaton, state: u32, from: u32) -> u32;
}

impl Operand for [u8] {
    fn walk<I: ReadImage + ?Sized>(&self, image: &I, automaton: &Automaton, mut state: u32, from: u32) -> u32 {
        for byte in self.iter().skip(from as usize) {
            state = image.step(automaton, state, *byte);
        }
        state
    }
}

/// Where in a path the part begins that follows the process's own entry of `/proc`; 0 where the path is not such a one.
/// Patterns with `/proc/self` and `/proc/thread-self` match the own entry only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnEntry {
    /// Length of `/proc/<own tgid>`, if the path is that or goes on with `/`.
    pub process: u32,
    /// Length of `/proc/<own tgid>/task/<own tid>`, if the path is that or goes on with `/`.
    pub thread: u32,
}

/// What the rules say about one object: the union of the labels of the names that it has (one, or up to three for the
/// own entries of `/proc`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Word of the labels, see [`crate::image::label_word`].
    pub word: u32,
    /// The label of the name, and of the names as `/proc/self` and `/proc/thread-self`; 0 where there is none.
    pub labels: [u16; 3],
    /// The state in which the name ended.
    pub state: u32,
}

impl Rights {
    /// Accesses that some rule allows and none denies.
    #[inline(always)]
    #[must_use]
    pub const fn effective(&self) -> u16 {
        if self.word & BUILTIN != 0 { 0 } else { (self.word as u16 & 0x7fff) & !((self.word >> 16) as u16) }
    }

    /// Whether a built-in rule denies.
    #[inline(always)]
    #[must_use]
    pub const fn builtin(&self) -> bool {
        self.word & BUILTIN != 0
    }

    /// The reason for the verdict on `access`: [`Reason::AllowRule`] is the only one that lets it pass.
    #[inline(always)]
    #[must_use]
    pub const fn judge(&self, access: u16) -> Reason {
        if self.builtin() {
            Reason::Builtin
        } else if (self.word >> 16) as u16 & access != 0 {
            Reason::DenyRule
        } else if self.word as u16 & access == access {
            Reason::AllowRule
        } else {
            Reason::NoRule
        }
    }
}

/// What the rules of `class` say about the object `bytes`.
#[inline(always)]
pub fn rights<I, B>(image: &I, class: Class, bytes: &B, own: OwnEntry) -> Rights
where
    I: ReadImage + ?Sized,
    B: Operand + ?Sized,
{
    let automaton = image.automaton(class);
    let state = bytes.walk(image, &automaton, automaton.start, 0);
    let label = image.label(&automaton, state);
    let mut rights = Rights { word: image.label_word(label), labels: [label, 0, 0], state };
    if own.process != 0 {
        let state = bytes.walk(image, &automaton, automaton.prefix, own.process);
        rights.labels[1] = image.label(&automaton, state);
        rights.word |= image.label_word(rights.labels[1]);
        if own.thread != 0 {
            let state = bytes.walk(image, &automaton, automaton.thread_prefix, own.thread);
            rights.labels[2] = image.label(&automaton, state);
            rights.word |= image.label_word(rights.labels[2]);
        }
    }
    rights
}

/// What the rules say about the unix socket with the path or `@name` in `bytes`.
#[inline(always)]
pub fn unix_rights<I, B>(image: &I, bytes: &B) -> Rights
where
    I: ReadImage + ?Sized,
    B: Operand + ?Sized,
{
    let automaton = image.automaton(Class::Network);
    let state = bytes.walk(image, &automaton, automaton.prefix, 0);
    let label = image.label(&automaton, state);
    Rights { word: image.label_word(label), labels: [label, 0, 0], state }
}

/// Whether the object named `old` would have, as `new`, an access that it has not now: as a file, an executable or a
/// unix socket. For a directory also whether any path below changes its rights: two names, each followed by `/`, end in
/// states of the same rights class exactly if the policy gives the same rights to anything below.
#[inline(always)]
pub fn more_rights<I, B>(image: &I, old: &B, new: &B, directory: bool) -> bool
where
    I: ReadImage + ?Sized,
    B: Operand + ?Sized,
{
    class_more_rights(image, Class::File, old, new, directory)
        || class_more_rights(image, Class::Exec, old, new, directory)
        || class_more_rights(image, Class::Network, old, new, directory)
}

#[inline(always)]
fn class_more_rights<I, B>(image: &I, class: Class, old: &B, new: &B, directory: bool) -> bool
where
    I: ReadImage + ?Sized,
    B: Operand + ?Sized,
{
    let automaton = image.automaton(class);
    let start = if matches!(class, Class::Network) { automaton.prefix } else { automaton.start };
    let before = old.walk(image, &automaton, start, 0);
    let after = new.walk(image, &automaton, start, 0);
    if before == after {
        return false;
    }
    let effective = |state| {
        let word = image.label_word(image.label(&automaton, state));
        Rights { word, labels: [0; 3], state }.effective()
    };
    effective(after) & !effective(before) != 0
        || directory && {
            let below = |state| image.rights_class(&automaton, image.step(&automaton, state, b'/'));
            below(before) != below(after)
        }
}

/// What was decided about one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why: [`Reason::AllowRule`] is the only reason that lets the operation pass.
    pub reason: Reason,
    /// What the rules say about the object.
    pub rights: Rights,
}

/// Judges `access` to the object `bytes` of `class`.
#[inline(always)]
pub fn decide<I, B>(image: &I, class: Class, bytes: &B, own: OwnEntry, access: u16) -> Decision
where
    I: ReadImage + ?Sized,
    B: Operand + ?Sized,
{
    let rights = rights(image, class, bytes, own);
    Decision { reason: rights.judge(access), rights }
}
