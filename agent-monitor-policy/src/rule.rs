//! Rules as they were read: valid each for itself, not yet united.

use crate::diagnostic::Place;
use crate::machine::Language;
use crate::pattern::Graph;
use agent_monitor_common::class::Class;

/// A rule of a document.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub class: Class,
    /// Whether it allows; else it denies.
    pub allow: bool,
    /// Its place in the document: `files[2]`.
    pub name: String,
    /// What it says about itself.
    pub reason: Option<String>,
    pub place: Place,
    pub objects: Vec<Object>,
}

/// Something that a rule applies to.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The accesses that the rule allows or denies.
    pub access: u16,
    /// The strings that are meant.
    pub graph: Graph,
    /// What strings there are.
    pub language: Language,
    /// The first byte of the operand, before what the graph matches.
    pub prefix: Option<u8>,
    /// Where it was written, and what was written.
    pub place: Place,
    pub text: String,
}

/// What a document says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub name: String,
    pub labels: std::collections::BTreeMap<String, String>,
    pub mode: Option<agent_monitor_common::class::Mode>,
    /// With its place.
    pub on_fault: Option<(agent_monitor_common::class::OnFault, Place)>,
    /// Where it has the key `syscalls`, if it has.
    pub syscalls: Option<Place>,
    pub syscall_enforcement: Option<agent_monitor_common::class::SyscallEnforcement>,
    pub includes: Vec<(String, Place)>,
    /// Names in `variables`.
    pub declared: Vec<String>,
    pub rules: Vec<Rule>,
}
