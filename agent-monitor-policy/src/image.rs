//! Writing images. The layout is described in `agent_monitor_common::image`.

use crate::machine::{Label, Machine, classes_of_states};
use crate::notes;
use crate::policy::Policy;
use agent_monitor_common::class::{CLASSES, Class, SyscallEnforcement, file};
use agent_monitor_common::image::{AUTOMATON_BYTES, HEADER_BYTES, MAGIC, VERSION, at, label_word, syscalls};
use agent_monitor_common::limit::{IMAGE_SIZES, LABELS, STATES};
use agent_monitor_common::name::UNIX;
use std::collections::HashMap;

/// A policy as the kernel programs read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(Vec<u8>);

impl Image {
    /// The bytes, a multiple of 8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It has more bytes than the largest size class.
    #[error("policy needs an image of {bytes} bytes, more than the limit")]
    Bytes {
        /// How many it would have.
        bytes: usize,
    },
    /// An automaton has too many states.
    #[error("policy needs a larger automaton for the class {} than the limit", class.name())]
    States {
        /// Whose automaton.
        class: Class,
    },
    /// There are too many different sets of matching rules.
    #[error("policy needs {labels} labels, more than the limit")]
    Labels {
        /// How many it would have.
        labels: usize,
    },
    /// A protected path is no absolute, resolved path.
    #[error("protected path {path:?} is not an absolute path without empty names, `.` and `..`")]
    Protected {
        /// The path.
        path: String,
    },
    /// Bytes that are read are not an image of this version.
    #[error("bytes are not a policy image: {what}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
}

/// The word of a label, as the kernel sees it.
fn word(label: Label) -> u32 {
    label_word(label.allowed(), label.denied(), label.builtin())
}

/// What of a label matters where a directory is renamed: what is effectively allowed, whether a built-in rule denies, and
/// whether mapping executable is denied (where it is not, the right to execute implies it).
fn rights(label: Label) -> (u16, bool, u16) {
    (label.allowed(), label.builtin(), label.denied() & file::MAP_EXEC)
}

/// Writes an image of `machines`.
pub(crate) fn write(policy: &Policy, machines: &[Machine; CLASSES], generation: u64) -> Result<Image, ImageError> {
    let mut out = vec![0; HEADER_BYTES as usize];
    let mut numbers = HashMap::new();
    let mut labels: Vec<(Class, Label)> = Vec::new();
    for (class, machine) in Class::ALL.iter().zip(machines) {
        if machine.states() > STATES {
            return Err(ImageError::States { class: *class });
        }
        let entry = automaton(&mut out, *class, machine, |label| match label {
            Label::NONE => 0,
            _ => *numbers.entry((*class, label)).or_insert_with(|| {
                labels.push((*class, label));
                labels.len()
            }),
        });
        for (i, number) in entry.iter().enumerate() {
            put(&mut out, at::AUTOMATA as usize + *class as usize * AUTOMATON_BYTES as usize + i * 4, *number);
        }
    }
    if labels.len() >= LABELS {
        return Err(ImageError::Labels { labels: labels.len() });
    }
    pad(&mut out);
    let labels_at = out.len();
    out.extend(0_u32.to_le_bytes());
    out.extend(labels.iter().flat_map(|(_, label)| word(*label).to_le_bytes()));
    pad(&mut out);
    let notes_at = out.len();
    out.extend(notes::write(&policy.name, policy.mode as u8, &policy.rules, &labels));
    pad(&mut out);
    let length = out.len();
    if length > IMAGE_SIZES[IMAGE_SIZES.len() - 1] {
        return Err(ImageError::Bytes { bytes: length });
    }
    for (offset, number) in [
        (at::MAGIC, MAGIC),
        (at::VERSION, VERSION),
        (at::GENERATION, generation as u32),
        (at::GENERATION + 4, (generation >> 32) as u32),
        (at::LENGTH, length as u32),
        (at::ON_FAULT, policy.on_fault as u32),
        (at::SYSCALLS, syscall_bits(policy)),
        (at::LABEL_COUNT, labels.len() as u32 + 1),
        (at::LABELS, labels_at as u32),
        (at::NOTES, notes_at as u32),
        (at::NOTES_LENGTH, (length - notes_at) as u32),
    ] {
        put(&mut out, offset as usize, number);
    }
    Ok(Image(out))
}

/// What the programs must know of the policy's system calls.
fn syscall_bits(policy: &Policy) -> u32 {
    let rules = if policy.syscalls { syscalls::RULES } else { 0 };
    let kill = if policy.syscall_enforcement == SyscallEnforcement::Kill { syscalls::KILL } else { 0 };
    rules | kill
}

/// Writes the tables of one automaton; its entry in the header.
fn automaton(out: &mut Vec<u8>, class: Class, machine: &Machine, mut number: impl FnMut(Label) -> usize) -> [u32; 8] {
    let classes = out.len();
    out.extend(machine.classes.as_slice());
    let rows = out.len();
    out.extend(machine.rows.iter().flat_map(|state| (*state as u16).to_le_bytes()));
    let accept = out.len();
    out.extend(machine.labels.iter().flat_map(|label| (number(*label) as u16).to_le_bytes()));
    let rights_classes = classes_of_states(machine, rights);
    out.extend(rights_classes.iter().flat_map(|class| (*class as u16).to_le_bytes()));
    pad(out);
    let (prefix, thread_prefix) = match class {
        Class::File | Class::Exec => (machine.walk(b"/proc/self"), machine.walk(b"/proc/thread-self")),
        Class::Network => (machine.walk(&[UNIX]), 0),
        _ => (0, 0),
    };
    let tables = [classes, rows, accept, machine.stride].map(|number| number as u32);
    let [classes, rows, accept, stride] = tables;
    [classes, rows, accept, stride, machine.start, prefix, thread_prefix, machine.states() as u32]
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn put(out: &mut [u8], at: usize, number: u32) {
    out[at..at + 4].copy_from_slice(&number.to_le_bytes());
}
