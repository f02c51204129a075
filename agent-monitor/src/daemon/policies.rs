//! The policies that are loaded, each in a slot of the kernel: those of the policy directory, those that one agent brought
//! along, and the same policy once more for each different set of variables. Pure bookkeeping; the node writes the slots.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use agent_monitor_common::binding::EMPTY_SLOT;
use agent_monitor_common::class::Mode;
use agent_monitor_common::limit::POLICIES;
use agent_monitor_policy::Policy;

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

/// A policy as it was compiled, before it has a slot.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The policy.
    pub policy: Policy,
    /// Warnings.
    pub messages: Vec<String>,
    /// Where its document comes from.
    pub path: String,
    /// Its document.
    pub text: String,
    /// Values given for its variables.
    pub variables: BTreeMap<String, String>,
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
    pub candidate: Candidate,
    fingerprint: u64,
}

impl Instance {
    /// Name of the policy.
    pub fn name(&self) -> &str {
        self.candidate.policy.name()
    }

    /// What the verdicts of its agents do, where they do not ask for something else.
    pub fn mode(&self) -> Mode {
        self.candidate.policy.mode()
    }
}

/// All policies.
#[derive(Debug, Default)]
pub struct Policies {
    instances: BTreeMap<u32, Instance>,
    generations: HashMap<String, u64>,
    last_slot: u32,
}

impl Policies {
    /// The policy in a slot.
    pub fn get(&self, slot: u32) -> Option<&Instance> {
        self.instances.get(&slot)
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

    /// A policy that differs in nothing from this one, from the same kind of source.
    pub fn same(&self, candidate: &Candidate, source: &Source) -> Option<&Instance> {
        let wanted = fingerprint(&candidate.policy);
        self.iter().find(|one| {
            one.source == *source
                && one.fingerprint == wanted
                && one.candidate.path == candidate.path
                && one.candidate.variables == candidate.variables
                && one.name() == candidate.policy.name()
        })
    }

    /// Whether a policy is what the slot has already.
    pub fn unchanged(&self, slot: u32, candidate: &Candidate) -> bool {
        self.get(slot).is_some_and(|one| {
            one.fingerprint == fingerprint(&candidate.policy) && one.mode() == candidate.policy.mode()
        })
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
        let last = self.generations.entry(name.to_owned()).or_default();
        *last += 1;
        *last
    }

    /// Says that a policy is in a slot now.
    pub fn put(&mut self, slot: u32, generation: u64, source: Source, candidate: Candidate) {
        let fingerprint = fingerprint(&candidate.policy);
        self.instances.insert(slot, Instance { slot, generation, source, candidate, fingerprint });
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

/// Tells a changed policy from an unchanged one.
fn fingerprint(policy: &Policy) -> u64 {
    let mut hasher = DefaultHasher::new();
    // One that gives no image is refused where it is loaded; what it differs in does not matter.
    policy.image(0, &[]).map(|image| image.as_bytes().to_vec()).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
