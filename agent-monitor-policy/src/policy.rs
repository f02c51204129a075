//! A policy: rules that were found to be right, united into one automaton a class. It cannot be wrong.

use crate::image::{self, Image, ImageError};
use crate::machine::{Budget, Label, Language, Machine, TooLarge, leaf};
use crate::notes::RuleNote;
use crate::pattern::Graph;
use agent_monitor_common::class::{CLASSES, Class, Mode, OnFault, SyscallEnforcement};
use agent_monitor_common::name::UNIX;
use std::collections::BTreeMap;

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) mode: Mode,
    pub(crate) on_fault: OnFault,
    /// Whether a document has `syscalls`.
    pub(crate) syscalls: bool,
    pub(crate) syscall_enforcement: SyscallEnforcement,
    /// Rules of all documents; labels name them by number.
    pub(crate) rules: Vec<RuleNote>,
    /// By class.
    pub(crate) machines: [Machine; CLASSES],
}

impl Policy {
    /// The built-in policy `empty`, which allows nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            name: "empty".to_owned(),
            labels: BTreeMap::new(),
            mode: Mode::Enforce,
            on_fault: OnFault::Deny,
            syscalls: false,
            syscall_enforcement: SyscallEnforcement::Launch,
            rules: Vec::new(),
            machines: std::array::from_fn(|_| Machine::empty()),
        }
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `metadata.labels`.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// `spec.mode` of the outermost document.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// `spec.onFault` of the outermost document.
    #[must_use]
    pub fn on_fault(&self) -> OnFault {
        self.on_fault
    }

    /// `spec.syscallEnforcement` of the outermost document.
    #[must_use]
    pub fn syscall_enforcement(&self) -> SyscallEnforcement {
        self.syscall_enforcement
    }

    /// States of the automaton of `class`, without what is protected.
    #[must_use]
    pub fn states(&self, class: Class) -> usize {
        self.machines[class as usize].states()
    }

    /// The image of this policy.
    ///
    /// `protected` are paths of the monitor's own: its socket, pins, policies, log. They are denied in the classes file,
    /// exec and network (unix sockets) whatever the rules and the mode say.
    ///
    /// # Errors
    /// The image would be too large, or a protected path is no resolved path.
    pub fn image(&self, generation: u64, protected: &[Protected]) -> Result<Image, ImageError> {
        let mut machines = self.machines.clone();
        if !protected.is_empty() {
            let mut budget = Budget(Budget::POLICY);
            let own = protected_machine(protected, &mut budget)?;
            for (class, own) in [(Class::File, &own), (Class::Exec, &own), (Class::Network, &own.after(UNIX))] {
                let machine = &mut machines[class as usize];
                *machine = machine.with(own, &mut budget).map_err(|TooLarge| ImageError::States { class })?;
            }
        }
        image::write(self, &machines, generation)
    }
}

/// Paths that no agent may touch, whatever its policy says. They are taken literally.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protected {
    /// This one and all below it.
    Tree(String),
    /// Each that begins like this: the file, what has its name with more after it, and all below these. A log is moved to
    /// such names when it is rotated.
    Prefix(String),
}

impl Protected {
    /// The path, or what paths begin with.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Tree(path) | Self::Prefix(path) => path,
        }
    }
}

/// Matches all that is protected.
fn protected_machine(protected: &[Protected], budget: &mut Budget) -> Result<Machine, ImageError> {
    let mut machines = Vec::new();
    for one in protected {
        let path = one.path();
        let invalid = || ImageError::Protected { path: path.to_owned() };
        // All of the root is the tree of the empty name.
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        let graph = match one {
            Protected::Tree(_) => Graph::of_tree(trimmed.as_bytes()),
            Protected::Prefix(_) => Graph::of_prefix(trimmed.as_bytes()),
        };
        let machine = leaf(&graph, Language::Path, Label::BUILTIN, budget).map_err(|TooLarge| invalid())?;
        // A path that is not resolved matches nothing.
        let name = if path == "/" { path } else { trimmed };
        if machine.label(machine.walk(name.as_bytes())) != Label::BUILTIN {
            return Err(invalid());
        }
        machines.push(machine);
    }
    Machine::union(&machines, budget).map_err(|_| ImageError::States { class: Class::File })
}
