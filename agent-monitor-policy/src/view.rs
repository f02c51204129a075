//! Reading images: checked once and whole, so that nothing that is read later is out of bounds.

use crate::image::ImageError;
use crate::machine::Cell;
use crate::notes::{self, Notes};
use agent_monitor_common::class::{CLASSES, Class, Mode, OnFault, Reason, SyscallEnforcement, USE};
use agent_monitor_common::decide::{OwnEntry, decide};
use agent_monitor_common::image::{HEADER_BYTES, MAGIC, ReadImage, VERSION, at, syscalls};
use agent_monitor_common::limit::{IMAGE_SIZES, STATES};
use agent_monitor_common::syscall::{self, Abi};

/// A policy's image that was checked.
#[derive(Clone, Debug)]
pub struct ImageView<'a> {
    bytes: &'a [u8],
    notes: Notes<'a>,
    mode: Mode,
    on_fault: OnFault,
}

/// A rule behind a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'a> {
    /// Its place in its document: `files[2]`, or `base/files[1]` where it was included.
    pub name: &'a str,
    /// Its `reason`.
    pub reason: Option<&'a str>,
    /// Its line in its document.
    pub line: u32,
}

impl<'a> ImageView<'a> {
    /// Checks an image. Bytes after its end are ignored: the kernel's copy is padded to its size class.
    ///
    /// # Errors
    /// It is not an image of this version, or something in it points outside.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let invalid = |what| ImageError::Invalid { what };
        if bytes.len() < HEADER_BYTES as usize || bytes.word(at::MAGIC) != MAGIC {
            return Err(invalid("no magic number"));
        }
        if bytes.word(at::VERSION) != VERSION {
            return Err(invalid("written by another version"));
        }
        let length = bytes.word(at::LENGTH) as usize;
        if length > IMAGE_SIZES[IMAGE_SIZES.len() - 1] || length < HEADER_BYTES as usize {
            return Err(invalid("length"));
        }
        let bytes = bytes.get(..length).ok_or(invalid("shorter than its header says"))?;
        let on_fault = u8::try_from(bytes.word(at::ON_FAULT)).ok().and_then(OnFault::from_byte);
        let labels = bytes.word(at::LABEL_COUNT) as usize;
        table(bytes, bytes.word(at::LABELS), labels, 4).ok_or(invalid("labels"))?;
        if labels == 0 || bytes.label_word(0) != 0 {
            return Err(invalid("label 0"));
        }
        for class in Class::ALL {
            check_automaton(bytes, *class, labels).ok_or(invalid("automaton"))?;
        }
        let notes = table(bytes, bytes.word(at::NOTES), bytes.word(at::NOTES_LENGTH) as usize, 1);
        let notes = notes.and_then(notes::read).filter(|notes| notes.labels.len() == labels).ok_or(invalid("notes"))?;
        let mode = Mode::from_byte(notes.mode).ok_or(invalid("mode"))?;
        Ok(Self { bytes, notes, mode, on_fault: on_fault.ok_or(invalid("fault"))? })
    }

    /// The policy's `metadata.name`.
    #[must_use]
    pub fn policy_name(&self) -> &str {
        self.notes.name
    }

    /// Counts up with each load of the policy.
    #[must_use]
    pub fn generation(&self) -> u64 {
        u64::from(self.bytes.word(at::GENERATION)) | u64::from(self.bytes.word(at::GENERATION + 4)) << 32
    }

    /// The policy's mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What an operation gets that cannot be decided.
    #[must_use]
    pub fn on_fault(&self) -> OnFault {
        self.on_fault
    }

    /// Whether a document of the policy has rules for system calls.
    #[must_use]
    pub fn has_syscalls(&self) -> bool {
        self.bytes.word(at::SYSCALLS) & syscalls::RULES != 0
    }

    /// How the system calls of the policy are enforced.
    #[must_use]
    pub fn syscall_enforcement(&self) -> SyscallEnforcement {
        let kill = self.bytes.word(at::SYSCALLS) & syscalls::KILL != 0;
        if kill { SyscallEnforcement::Kill } else { SyscallEnforcement::Launch }
    }

    /// Whether the policy allows this system call.
    #[must_use]
    pub fn allows_syscall(&self, abi: Abi, number: u32) -> bool {
        let operand = syscall::operand(abi, number);
        let decided = decide(self.bytes, Class::Syscall, operand.as_slice(), OwnEntry::default(), USE);
        decided.reason == Reason::AllowRule
    }

    /// The image without what may follow it.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// States of the automaton of `class`.
    #[must_use]
    pub fn states(&self, class: Class) -> u32 {
        self.bytes.automaton(class).states
    }

    /// The rule behind a decision, from what an event carries: the first in document order that allows, or denies, one of
    /// the accesses asked for. `None` where no rule decided.
    #[must_use]
    pub fn rule(&self, class: Class, labels: [u16; 3], access: u16, reason: Reason) -> Option<RuleRef<'_>> {
        self.rule_at(self.rule_number(class, labels, access, reason)?)
    }

    pub(crate) fn rule_at(&self, number: u32) -> Option<RuleRef<'_>> {
        let rule = self.notes.rules.get(number as usize)?;
        Some(RuleRef { name: rule.name, reason: rule.reason, line: rule.line })
    }

    /// The number of the rule behind a decision: numbers are in document order.
    pub(crate) fn rule_number(&self, class: Class, labels: [u16; 3], access: u16, reason: Reason) -> Option<u32> {
        let labels = labels.iter().filter_map(|label| self.notes.labels.get(usize::from(*label)));
        let cells = labels.flat_map(|label| {
            // The right to execute implies mapping: then the label is of the other class, which has but one access.
            let access = if label.class == class { access } else { 1 };
            label.cells.iter().enumerate().filter(move |(bit, _)| access >> bit & 1 == 1).map(|(_, cell)| *cell)
        });
        cells
            .filter_map(|cell| match (cell, reason) {
                (Cell::Allow(rule), Reason::AllowRule) | (Cell::Deny(rule), Reason::DenyRule) => Some(rule),
                _ => None,
            })
            .min()
    }
}

/// The `count` elements of `size` bytes at `offset`, if they are aligned and inside.
fn table(bytes: &[u8], offset: u32, count: usize, size: usize) -> Option<&[u8]> {
    let offset = offset as usize;
    let length = count.checked_mul(size)?;
    if !offset.is_multiple_of(size) || offset < HEADER_BYTES as usize {
        return None;
    }
    bytes.get(offset..offset.checked_add(length)?)
}

fn check_automaton(bytes: &[u8], class: Class, labels: usize) -> Option<()> {
    let automaton = bytes.automaton(class);
    let (states, stride) = (automaton.states as usize, automaton.stride as usize);
    if states == 0 || states > STATES || stride == 0 || stride > 256 {
        return None;
    }
    let classes = table(bytes, automaton.classes, 256, 1)?;
    let rows = table(bytes, automaton.rows, states.checked_mul(stride)?, 2)?;
    // The labels of the states, then their rights classes.
    let accept = table(bytes, automaton.accept, states.checked_mul(2)?, 2)?;
    let numbers = |table: &'_ [u8]| -> Vec<usize> {
        table.chunks_exact(2).map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]]))).collect()
    };
    let (rows, accept) = (numbers(rows), numbers(accept));
    let first = [automaton.start, automaton.prefix, automaton.thread_prefix];
    let good = classes.iter().all(|class| usize::from(*class) < stride)
        && rows.iter().all(|state| *state < states)
        && rows[..stride].iter().all(|state| *state == 0)
        && accept[..states].iter().all(|label| *label < labels)
        && accept[0] == 0
        && first.iter().all(|state| (*state as usize) < states);
    good.then_some(())
}

const _: () = assert!(CLASSES * 32 + at::AUTOMATA as usize <= HEADER_BYTES as usize);
