//! The policies that are loaded, each in a slot of the kernel: those of the policy directory, those that one agent brought
//! along, and the same policy once more for each different set of variables. Pure bookkeeping; the node writes the slots.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use agent_monitor_common::binding::EMPTY_SLOT;
use agent_monitor_common::class::{Mode, SyscallEnforcement};
use agent_monitor_common::image::at;
use agent_monitor_common::limit::POLICIES;
use agent_monitor_policy::{Document, ImageError, ImageView, Policy, Protected};

use super::compiler::Included;
use super::state::{Numbers, PolicyState};

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Builtin,
    /// A file of the policy directory.
    Directory,
    /// The same, removed since: it stays for the agents that have it.
    Removed,
    /// Brought by an agent; it goes with its last agent.
    Agent,
}

impl Source {
    /// The word for it in the state.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Directory => "directory",
            Self::Removed => "removed",
            Self::Agent => "agent",
        }
    }

    /// What the word means; one that is unknown is gone with its last agent.
    pub fn from_name(name: &str) -> Self {
        let all = [Self::Builtin, Self::Directory, Self::Agent];
        all.into_iter().find(|source| source.name() == name).unwrap_or(Self::Removed)
    }
}

/// A policy as it was compiled, before it has a slot.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name of the policy.
    pub name: String,
    /// Labels of the policy.
    pub labels: BTreeMap<String, String>,
    /// What the verdicts of its agents do, where they do not ask for something else.
    pub mode: Mode,
    /// How system calls are enforced.
    pub syscall_enforcement: SyscallEnforcement,
    /// Its image, of generation 0.
    image: Arc<[u8]>,
    /// Tells images apart.
    fingerprint: u64,
    /// Warnings.
    pub messages: Vec<String>,
    /// Where its document comes from.
    pub path: String,
    /// Its document.
    pub text: String,
    /// Values given for its variables.
    pub variables: BTreeMap<String, String>,
    /// What its document includes.
    pub included: Vec<Included>,
    /// This daemon has compiled it, or would make the same of it. Else it was found in the kernel: another build may have
    /// made the image, for other protected paths, or of an older document than the state has.
    pub compiled: bool,
    /// Says what the image was made of, and by what: see [`Compiler::seal`](super::compiler::Compiler::seal). Empty where that
    /// is not known.
    pub seal: String,
    /// Paths that it protects beside the monitor's own.
    pub also: Vec<String>,
}

impl Candidate {
    /// A policy without a document.
    ///
    /// # Errors
    /// It has no image: it is too large, or a protected path is no path.
    pub fn new(policy: &Policy, protected: &[Protected]) -> Result<Self, ImageError> {
        let image: Arc<[u8]> = policy.image(0, protected)?.as_bytes().into();
        let fingerprint = fingerprint(&image);
        Ok(Self {
            name: policy.name().to_owned(),
            labels: policy.labels().clone(),
            mode: policy.mode(),
            syscall_enforcement: policy.syscall_enforcement(),
            image,
            fingerprint,
            messages: Vec::new(),
            path: "built in".to_owned(),
            text: String::new(),
            variables: BTreeMap::new(),
            included: Vec::new(),
            compiled: true,
            seal: String::new(),
            also: Vec::new(),
        })
    }

    /// A policy that is in force already: its image as the kernel has it, and where it comes from as far as that is known.
    pub fn restored(view: &ImageView<'_>, state: Option<PolicyState>) -> Self {
        let image: Arc<[u8]> = with_generation(view.as_bytes().to_vec(), 0).into();
        let state = state.unwrap_or_else(PolicyState::unknown);
        let included = state.included.into_iter().map(|one| Included {
            name: one.name,
            beside: one.beside,
            document: Document { path: one.path, text: one.text },
        });
        Self {
            name: view.policy_name().to_owned(),
            labels: state.labels,
            mode: view.mode(),
            syscall_enforcement: view.syscall_enforcement(),
            fingerprint: fingerprint(&image),
            image,
            messages: state.messages,
            path: state.path,
            text: state.text,
            variables: state.variables,
            included: included.collect(),
            compiled: false,
            seal: String::new(),
            also: state.also,
        }
    }

    /// The image with its generation.
    pub fn image(&self, generation: u64) -> Vec<u8> {
        with_generation(self.image.to_vec(), generation)
    }

    /// The image without a generation.
    pub fn shared_image(&self) -> Arc<[u8]> {
        self.image.clone()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.mode == other.mode && self.name == other.name
    }
}

fn with_generation(mut image: Vec<u8>, generation: u64) -> Vec<u8> {
    let at = at::GENERATION as usize;
    let place = image.get_mut(at..at + size_of::<u64>()).expect("an image is longer than its header");
    place.copy_from_slice(&generation.to_le_bytes());
    image
}

fn fingerprint(image: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}

/// A policy in a slot.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The slot.
    pub slot: u32,
    /// Its generation, counted for each name.
    pub generation: u64,
    /// Where it comes from.
    pub source: Source,
    /// The policy.
    pub candidate: Arc<Candidate>,
}

impl Instance {
    /// Name of the policy.
    pub fn name(&self) -> &str {
        &self.candidate.name
    }

    /// What the verdicts of its agents do, where they do not ask for something else.
    pub fn mode(&self) -> Mode {
        self.candidate.mode
    }
}

/// All policies.
#[derive(Debug, Default)]
pub struct Policies {
    instances: BTreeMap<u32, Instance>,
    generations: HashMap<String, u64>,
    forgotten_generation: u64,
    last_slot: u32,
}

/// Names whose last generations are known, of policies that are gone too: all are written down at each change.
const MOST_NAMES: usize = 4096;

impl Policies {
    /// The policy in a slot.
    pub fn get(&self, slot: u32) -> Option<&Instance> {
        self.instances.get(&slot)
    }

    /// What the verdicts of a slot's agents do, where they do not ask for something else. Without a policy they are enforced.
    pub fn mode(&self, slot: u32) -> Mode {
        self.get(slot).map_or(Mode::Enforce, Instance::mode)
    }

    /// Whether each system call of a slot's agents is looked at.
    pub fn watches_syscalls(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(|one| one.candidate.syscall_enforcement == SyscallEnforcement::Kill)
    }

    /// All policies in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// The policy of the directory (or built in) with this name and no variables of its own.
    pub fn named(&self, name: &str) -> Option<&Instance> {
        let known = |one: &&Instance| matches!(one.source, Source::Builtin | Source::Directory);
        self.iter().filter(known).find(|one| one.name() == name && one.candidate.variables.is_empty())
    }

    /// The policy with this name whose file is gone, and that its agents have still.
    pub fn removed(&self, name: &str) -> Option<&Instance> {
        // One without a document was taken over without its state: an agent may have brought it.
        let was_read = |one: &&Instance| one.source == Source::Removed && !one.candidate.text.is_empty();
        self.iter().filter(was_read).find(|one| one.name() == name && one.candidate.variables.is_empty())
    }

    /// A policy that differs in nothing from this one, from the same kind of source.
    pub fn same(&self, candidate: &Candidate, source: &Source) -> Option<&Instance> {
        self.iter().find(|one| {
            let known = &one.candidate;
            one.source == *source
                && known.is_same(candidate)
                && known.path == candidate.path
                && known.variables == candidate.variables
        })
    }

    /// Whether a policy is what the slot has already.
    pub fn unchanged(&self, slot: u32, candidate: &Candidate) -> bool {
        self.get(slot).is_some_and(|one| one.candidate.is_same(candidate))
    }

    /// A slot that no policy has: the one that was freed longest ago, so that late events of an earlier policy are not
    /// taken for its.
    pub fn free_slot(&mut self) -> Option<u32> {
        for _ in 1..POLICIES {
            self.last_slot = if self.last_slot + 1 < POLICIES { self.last_slot + 1 } else { EMPTY_SLOT + 1 };
            if !self.instances.contains_key(&self.last_slot) {
                return Some(self.last_slot);
            }
        }
        None
    }

    /// The generation that the next image of this policy has.
    pub fn next_generation(&mut self, name: &str) -> u64 {
        if self.generations.len() >= MOST_NAMES && !self.generations.contains_key(name) {
            self.forget_names();
        }
        let last = self.generations.entry(name.to_owned()).or_insert(self.forgotten_generation);
        *last += 1;
        *last
    }

    /// Forgets the names of policies that are gone; whoever comes back by one of them goes on above all of theirs.
    fn forget_names(&mut self) {
        let loaded: HashSet<&str> = self.instances.values().map(Instance::name).collect();
        let last = &mut self.forgotten_generation;
        self.generations.retain(|name, generation| {
            let stays = loaded.contains(name.as_str());
            *last = if stays { *last } else { (*last).max(*generation) };
            stays
        });
    }

    /// Goes on where another daemon has stopped.
    pub fn restore(&mut self, numbers: &Numbers) {
        self.generations.clone_from(&numbers.generations);
        self.forgotten_generation = numbers.forgotten_generation;
        self.last_slot = numbers.last_slot;
    }

    /// Puts down the last generation of each policy, and the slot that was taken last.
    pub fn note(&self, numbers: &mut Numbers) {
        numbers.generations.clone_from(&self.generations);
        numbers.forgotten_generation = self.forgotten_generation;
        numbers.last_slot = self.last_slot;
    }

    /// Says that a policy is in a slot now.
    pub fn put(&mut self, slot: u32, generation: u64, source: Source, candidate: Arc<Candidate>) {
        let last = self.generations.entry(candidate.name.clone()).or_default();
        *last = generation.max(*last);
        self.instances.insert(slot, Instance { slot, generation, source, candidate });
    }

    /// Takes a newer document of a policy that means the same: its text, and where its parts are.
    pub fn renew(&mut self, slot: u32, candidate: Arc<Candidate>) {
        if let Some(one) = self.instances.get_mut(&slot) {
            one.candidate = candidate;
        }
    }

    /// Says where the policy in a slot comes from now.
    pub fn set_source(&mut self, slot: u32, source: Source) {
        if let Some(one) = self.instances.get_mut(&slot) {
            one.source = source;
        }
    }

    /// Takes a policy out of its slot.
    pub fn remove(&mut self, slot: u32) -> Option<Instance> {
        self.instances.remove(&slot)
    }
}

#[cfg(test)]
mod tests;
