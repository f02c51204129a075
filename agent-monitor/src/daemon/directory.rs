//! What everybody in the daemon looks up: agents by number, images by slot and generation. Written by the node, and by the
//! pump for agents that the kernel announces; read for each event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use agent_monitor_common::binding::FIRST_KERNEL_AGENT;
use agent_monitor_common::class::{Class, Mode, Reason};
use agent_monitor_policy::ImageView;

use crate::bind::{Agent, Hierarchy, Origin, Table, shown};
use crate::event::Observed;
use crate::record::escape::escape;
use crate::record::{AgentRef, PolicyRef, Tally};

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
    /// The image, without its generation: the policy in force has the same bytes.
    pub bytes: Arc<[u8]>,
    rules: Mutex<HashMap<RuleKey, Option<Rule>>>,
}

/// What names a rule in an image.
type RuleKey = (u8, [u16; 3], u16, u8);
/// Place of a rule in its document, and what it says about itself.
type Rule = (String, Option<String>);

impl Loaded {
    /// An image of this policy.
    pub fn new(name: &str, generation: u64, bytes: Arc<[u8]>) -> Self {
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
    /// How far the operations of agents have come that the kernel made and whose announcement never came.
    strangers: Mutex<HashMap<u32, Arc<Tally>>>,
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
        Self {
            hierarchy,
            table: RwLock::default(),
            images: RwLock::default(),
            found: Mutex::default(),
            strangers: Mutex::default(),
        }
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

    /// Whether there are such agents.
    pub fn has_found(&self) -> bool {
        !self.found.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether this is one of them.
    pub fn is_found(&self, number: u32) -> bool {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    /// Takes them all: their announcements do not come any more.
    pub fn take_found(&self) -> HashSet<u32> {
        std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds the agent of a cgroup that the kernel announces, if it has none yet. `note` writes it down before anybody else
    /// knows it.
    pub fn announce(&self, event: &Observed, cgroup: u64, parent: u64, note: impl FnOnce(&Agent)) -> Announced {
        let mut table = self.table_mut();
        if let Some(known) = table.by_cgroup(cgroup) {
            let untold = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&known.number);
            return match known.number == event.header.agent {
                true if untold => Announced::New(Box::new(known.clone())),
                true => Announced::Known,
                false => Announced::Superfluous,
            };
        }
        let number = event.header.agent;
        if table.get(number).is_some() {
            return Announced::Known;
        }
        // Where it was made may be gone by now as well.
        let parent = table.by_cgroup(parent);
        let name = Some(OsStr::from_bytes(&event.object)).filter(|name| !name.is_empty());
        let path = parent.and_then(|parent| Some(parent.cgroup.as_deref()?.join(name?)));
        let policy = self.policy(event.header.slot).name;
        let identity =
            AgentRef { cgroup: path.as_deref().map(shown), ..derived_identity(&table, &policy, name, cgroup) };
        let agent = Agent {
            number,
            identity: Arc::new(identity),
            cgroup: path,
            origin: Origin::Below,
            slot: event.header.slot,
            mode: parent.map_or(Mode::Enforce, |parent| parent.mode),
            mode_fixed: parent.is_some_and(|parent| parent.mode_fixed),
            limit: None,
            tally: self.met(number).unwrap_or_default(),
        };
        note(&agent);
        table.add(agent.clone());
        Announced::New(Box::new(agent))
    }

    /// How far the operations have come of an agent that the kernel made and has not announced.
    pub fn stranger(&self, number: u32) -> Arc<Tally> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default().clone()
    }

    /// Those of whom [`Self::stranger`] was asked.
    pub fn strangers(&self) -> Vec<u32> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Whether there are any.
    pub fn has_strangers(&self) -> bool {
        !self.strangers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes the tally of an agent that is no stranger from now on.
    pub fn met(&self, number: u32) -> Option<Arc<Tally>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

/// What stands before the number in the id of an agent of which nothing else is known.
const NUMBERED: &str = "agent-";

/// The identity of an agent of which only the number is known.
pub fn numbered(number: u32, cgroup_id: u64) -> AgentRef {
    let id = format!("{NUMBERED}{number}");
    AgentRef { name: id.clone(), id, cgroup_id, ..AgentRef::default() }
}

/// The number in such an id. Only the kernel gives such high ones; an agent with a name may be called `agent-2`.
pub fn number_of(id: &str) -> Option<u32> {
    id.strip_prefix(NUMBERED)?.parse().ok().filter(|number| *number >= FIRST_KERNEL_AGENT)
}

/// What is known of an agent by its cgroup's name alone, without the path.
pub fn derived_identity(table: &Table, policy: &str, name: Option<&OsStr>, cgroup: u64) -> AgentRef {
    let name = name.map(|name| escape(name.as_bytes()));
    let name = name.unwrap_or_else(|| format!("cgroup-{cgroup}"));
    AgentRef {
        id: free_id(table, policy, &name, cgroup),
        name,
        cgroup_id: cgroup,
        cgroup: None,
        labels: BTreeMap::new(),
    }
}

/// The id of an agent: its policy and the name of its cgroup, as it is shown, made different from all others by the
/// cgroup's id.
pub fn free_id(table: &Table, policy: &str, name: &str, cgroup: u64) -> String {
    let id = if policy.is_empty() || policy == name { name.to_owned() } else { format!("{policy}-{name}") };
    if table.by_id(&id).is_none() { id } else { format!("{id}-{cgroup}") }
}
