//! What everybody in the daemon looks up: agents by number, images by slot and generation. Written by the node, and by the
//! pump for agents that the kernel announces; read for each event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use agent_monitor_common::class::{Class, Reason};
use agent_monitor_policy::ImageView;

use crate::bind::{Agent, Hierarchy, Origin, Table, shown};
use crate::event::Observed;
use crate::record::escape::escape;
use crate::record::{AgentRef, PolicyRef};

/// Earlier generations of a slot's image that are kept, for events that they decided and that come later.
const GENERATIONS: usize = 8;
/// Rules of one image that are remembered by their labels.
const RULES: usize = 4096;

/// An image as the kernel has it.
#[derive(Debug)]
pub struct Loaded {
    /// Name of the policy.
    pub name: String,
    /// Generation of the policy.
    pub generation: u64,
    /// The image.
    pub bytes: Vec<u8>,
    rules: Mutex<HashMap<RuleKey, Option<Rule>>>,
}

/// What names a rule in an image.
type RuleKey = (u8, [u16; 3], u16, u8);
/// Place of a rule in its document, and what it says about itself.
type Rule = (String, Option<String>);

impl Loaded {
    /// An image of this policy.
    pub fn new(name: &str, generation: u64, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), generation, bytes, rules: Mutex::default() }
    }

    /// The policy, without a rule.
    fn reference(&self) -> PolicyRef {
        PolicyRef { name: self.name.clone(), generation: self.generation, ..PolicyRef::default() }
    }

    fn rule(&self, event: &Observed) -> Option<Rule> {
        let header = &event.header;
        let key = (event.class as u8, header.labels, header.access, event.reason as u8);
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = rules.get(&key) {
            return known.clone();
        }
        let rule = self.look_up(event.class, header.labels, header.access, event.reason);
        if rules.len() < RULES {
            rules.insert(key, rule.clone());
        }
        rule
    }

    fn look_up(&self, class: Class, labels: [u16; 3], access: u16, reason: Reason) -> Option<Rule> {
        let view = ImageView::parse(&self.bytes).ok()?;
        let rule = view.rule(class, labels, access, reason)?;
        Some((rule.name.to_owned(), rule.reason.map(str::to_owned)))
    }
}

/// What everybody looks up.
#[derive(Debug)]
pub struct Directory {
    /// Where the cgroups are.
    pub hierarchy: Hierarchy,
    table: RwLock<Table>,
    images: RwLock<HashMap<u32, Vec<Arc<Loaded>>>>,
    /// Agents that were found in the kernel, and whose announcement may still be in the ring.
    found: Mutex<HashSet<u32>>,
}

/// What the kernel's announcement of a cgroup comes to.
pub enum Announced {
    /// This agent is new.
    New(Box<Agent>),
    /// It is known.
    Known,
    /// The cgroup is another agent's: nobody needs the number that the kernel made.
    Superfluous,
}

impl Directory {
    /// An empty directory.
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self { hierarchy, table: RwLock::default(), images: RwLock::default(), found: Mutex::default() }
    }

    /// The agents, to read.
    pub fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agents, to change. Whoever makes a cgroup below the agents root holds this until it has added its agent, so
    /// that the kernel's announcement of the same cgroup finds it.
    pub fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that this image is in a slot from now on.
    pub fn set_image(&self, slot: u32, loaded: Loaded) {
        let mut images = self.images.write().unwrap_or_else(PoisonError::into_inner);
        let generations = images.entry(slot).or_default();
        generations.push(Arc::new(loaded));
        if generations.len() > GENERATIONS {
            generations.remove(0);
        }
    }

    /// Forgets the last image of a slot, which the kernel did not take.
    pub fn take_back(&self, slot: u32) {
        if let Some(generations) = self.images.write().unwrap_or_else(PoisonError::into_inner).get_mut(&slot) {
            generations.pop();
        }
    }

    /// Forgets the images of a slot.
    pub fn clear_image(&self, slot: u32) {
        self.images.write().unwrap_or_else(PoisonError::into_inner).remove(&slot);
    }

    /// The image that is in a slot now.
    pub fn image(&self, slot: u32) -> Option<Arc<Loaded>> {
        self.images.read().unwrap_or_else(PoisonError::into_inner).get(&slot)?.last().cloned()
    }

    /// The policy that is in a slot now.
    pub fn policy(&self, slot: u32) -> PolicyRef {
        self.image(slot).map(|loaded| loaded.reference()).unwrap_or_default()
    }

    /// The policy and rule that decided an event.
    pub fn decided_by(&self, event: &Observed) -> PolicyRef {
        let images = self.images.read().unwrap_or_else(PoisonError::into_inner);
        let generation = event.header.generation;
        let mut found = images.get(&event.header.slot).into_iter().flatten();
        let Some(loaded) = found.find(|loaded| loaded.generation == generation).cloned() else {
            return PolicyRef { generation, ..PolicyRef::default() };
        };
        drop(images);
        let (rule, rule_reason) = loaded.rule(event).unzip();
        PolicyRef { rule, rule_reason: rule_reason.flatten(), ..loaded.reference() }
    }

    /// Says that an agent was found in the kernel, and was perhaps never told of.
    pub fn found(&self, number: u32) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Adds the agent of a cgroup that the kernel announces, if it has none yet.
    pub fn announce(&self, event: &Observed, cgroup: u64, parent: u64) -> Announced {
        let mut table = self.table_mut();
        if let Some(known) = table.by_cgroup(cgroup) {
            let untold = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&known.number);
            return match known.number == event.header.agent {
                true if untold => Announced::New(Box::new(known.clone())),
                true => Announced::Known,
                false => Announced::Superfluous,
            };
        }
        let Some(parent) = table.by_cgroup(parent) else { return Announced::Superfluous };
        let path = match &event.object[..] {
            // The kernel gives the name where it can; to look for it costs a walk over all children of the parent.
            [] => parent.place().and_then(|parent| {
                let children = self.hierarchy.children(&parent).unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot find the path of a new cgroup");
                    Vec::new()
                });
                children.into_iter().find(|child| child.id == cgroup).map(|child| child.path)
            }),
            name => parent.cgroup.as_deref().map(|parent| parent.join(OsStr::from_bytes(name))),
        };
        let policy = self.policy(event.header.slot).name;
        let identity = derived_identity(&table, &policy, path.as_deref(), cgroup);
        let agent = Agent {
            number: event.header.agent,
            identity: Arc::new(identity),
            cgroup: path,
            origin: Origin::Below,
            slot: event.header.slot,
            mode: parent.mode,
            mode_fixed: parent.mode_fixed,
            limit: None,
            tally: Arc::default(),
        };
        table.add(agent.clone());
        Announced::New(Box::new(agent))
    }
}

/// What is known of an agent by its cgroup alone.
pub fn derived_identity(table: &Table, policy: &str, path: Option<&Path>, cgroup: u64) -> AgentRef {
    let name = path.and_then(Path::file_name).map(|name| escape(name.as_bytes()));
    let name = name.unwrap_or_else(|| format!("cgroup-{cgroup}"));
    AgentRef {
        id: free_id(table, policy, &name, cgroup),
        name,
        cgroup_id: cgroup,
        cgroup: path.map(shown),
        labels: BTreeMap::new(),
    }
}

/// The id of an agent: its policy and the name of its cgroup, as it is shown, made different from all others by the
/// cgroup's id.
pub fn free_id(table: &Table, policy: &str, name: &str, cgroup: u64) -> String {
    let id = if policy.is_empty() || policy == name { name.to_owned() } else { format!("{policy}-{name}") };
    if table.by_id(&id).is_none() { id } else { format!("{id}-{cgroup}") }
}
