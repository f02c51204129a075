//! The agents of this node, by number, id and cgroup.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_monitor_common::binding::FIRST_KERNEL_AGENT;
use agent_monitor_common::class::Mode;

use super::cgroup::{Cgroup, shown};
use super::limit::Limit;
use crate::record::{AgentRef, Tally};

/// How a cgroup became an agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The agents root itself, or a policy's directory below it: what is made in it becomes an agent.
    Directory,
    /// Somebody made a cgroup below the agents root.
    Below,
    /// We made the cgroup, and remove it.
    Made,
    /// A cgroup elsewhere, bound by request or configuration; it can be unbound.
    Bound,
    /// The test at start, of which no records are made.
    Test,
}

impl Origin {
    /// Whether it is an agent for others, and not a place or a test.
    pub const fn is_agent(self) -> bool {
        !matches!(self, Self::Directory | Self::Test)
    }

    /// The word for it in answers of the control socket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Below => "below-root",
            Self::Made => "made",
            Self::Bound => "bound",
            Self::Test => "test",
        }
    }
}

/// One agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its number in the kernel.
    pub number: u32,
    /// Who it is, for records.
    pub identity: Arc<AgentRef>,
    /// Path of its cgroup; none where it is known to be gone. It may be gone now, and its path be another's.
    pub cgroup: Option<PathBuf>,
    /// How it became one.
    pub origin: Origin,
    /// Slot of its policy's image.
    pub slot: u32,
    /// What its verdicts do.
    pub mode: Mode,
    /// The mode was asked for, so it does not follow the policy's.
    pub mode_fixed: bool,
    /// When its binding ends; none where it does not.
    pub limit: Option<Limit>,
    /// How far its operations have come.
    pub tally: Arc<Tally>,
}

impl Agent {
    /// Its cgroup, where it has a path.
    pub fn place(&self) -> Option<Cgroup> {
        self.cgroup.clone().map(|path| Cgroup { path, id: self.identity.cgroup_id })
    }

    /// Path of its cgroup.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn path(&self) -> io::Result<&Path> {
        let gone = || io::Error::new(ErrorKind::NotFound, format!("the cgroup of agent {} is gone", self.identity.id));
        self.cgroup.as_deref().ok_or_else(gone)
    }

    /// Its cgroup, for messages.
    pub fn shown(&self) -> String {
        self.cgroup.as_deref().map_or_else(|| format!("with the id {}", self.identity.cgroup_id), shown)
    }
}

/// All agents.
#[derive(Debug, Default)]
pub struct Table {
    agents: HashMap<u32, Agent>,
    ids: HashMap<String, u32>,
    cgroups: HashMap<u64, u32>,
    slots: HashMap<u32, u64>,
    last: u32,
}

impl Table {
    /// Goes on where another daemon has stopped: no agent so far has this number or a higher one.
    pub fn start_after(&mut self, next: u32) {
        self.last = self.last.max(next.saturating_sub(1));
    }

    /// A number that no agent had before.
    pub fn next_number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Adds an agent, in the place of one that has its number.
    pub fn add(&mut self, agent: Agent) {
        self.remove(agent.number);
        self.ids.insert(agent.identity.id.clone(), agent.number);
        self.cgroups.insert(agent.identity.cgroup_id, agent.number);
        *self.slots.entry(agent.slot).or_default() += 1;
        if agent.number < FIRST_KERNEL_AGENT {
            self.last = self.last.max(agent.number);
        }
        self.agents.insert(agent.number, agent);
    }

    /// Removes an agent.
    pub fn remove(&mut self, number: u32) -> Option<Agent> {
        let agent = self.agents.remove(&number)?;
        self.uncount(agent.slot);
        if self.ids.get(&agent.identity.id) == Some(&number) {
            self.ids.remove(&agent.identity.id);
        }
        if self.cgroups.get(&agent.identity.cgroup_id) == Some(&number) {
            self.cgroups.remove(&agent.identity.cgroup_id);
        }
        Some(agent)
    }

    /// The agent with this number.
    pub fn get(&self, number: u32) -> Option<&Agent> {
        self.agents.get(&number)
    }

    /// Gives an agent another slot or mode, and gives it as it is then.
    pub fn change(&mut self, number: u32, slot: u32, mode: Mode) -> Option<Agent> {
        let agent = self.agents.get_mut(&number)?;
        let old = std::mem::replace(&mut agent.slot, slot);
        agent.mode = mode;
        let changed = agent.clone();
        *self.slots.entry(slot).or_default() += 1;
        self.uncount(old);
        Some(changed)
    }

    /// Gives an agent another name and other labels, and says whether its mode is its own.
    pub fn describe(&mut self, number: u32, name: Option<String>, labels: BTreeMap<String, String>, mode_fixed: bool) {
        if let Some(agent) = self.agents.get_mut(&number) {
            agent.mode_fixed = mode_fixed;
            let identity = Arc::make_mut(&mut agent.identity);
            identity.name = name.unwrap_or_else(|| identity.id.clone());
            identity.labels = labels;
        }
    }

    /// Gives an agent another end, and gives it as it is then, with the end that it had.
    pub fn limit(&mut self, number: u32, limit: Option<Limit>) -> Option<(Agent, Option<Limit>)> {
        let agent = self.agents.get_mut(&number)?;
        let before = std::mem::replace(&mut agent.limit, limit);
        Some((agent.clone(), before))
    }

    /// Takes the path from an agent whose cgroup is not there any more.
    pub fn lose_path(&mut self, number: u32) {
        if let Some(agent) = self.agents.get_mut(&number) {
            agent.cgroup = None;
        }
    }

    fn uncount(&mut self, slot: u32) {
        if let Some(count) = self.slots.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                self.slots.remove(&slot);
            }
        }
    }

    /// How many agents a slot's policy has.
    pub fn count(&self, slot: u32) -> u64 {
        self.slots.get(&slot).copied().unwrap_or(0)
    }

    /// The agent with this id.
    pub fn by_id(&self, id: &str) -> Option<&Agent> {
        self.get(*self.ids.get(id)?)
    }

    /// The agent whose own cgroup this is.
    pub fn by_cgroup(&self, id: u64) -> Option<&Agent> {
        self.get(*self.cgroups.get(&id)?)
    }

    /// All agents, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u32, id: &str, cgroup_id: u64) -> Agent {
        let identity = AgentRef { id: id.to_owned(), cgroup_id, ..AgentRef::default() };
        Agent {
            number,
            identity: Arc::new(identity),
            cgroup: Some(format!("/{id}").into()),
            origin: Origin::Made,
            slot: 1,
            mode: Mode::Enforce,
            mode_fixed: false,
            limit: None,
            tally: Arc::default(),
        }
    }

    #[test]
    fn agents_are_found_by_number_id_and_cgroup_until_they_are_removed() {
        let mut table = Table::default();
        let number = table.next_number();
        table.add(agent(number, "a", 7));
        assert_eq!(table.by_id("a").map(|agent| agent.number), Some(number));
        assert_eq!(table.by_cgroup(7).map(|agent| agent.number), Some(number));
        assert!(table.remove(number).is_some());
        assert!(table.by_id("a").is_none() && table.by_cgroup(7).is_none() && table.iter().count() == 0);
        assert_ne!(table.next_number(), number);
    }

    #[test]
    fn agents_are_counted_by_slot() {
        let mut table = Table::default();
        table.add(agent(1, "a", 7));
        table.add(agent(2, "b", 8));
        assert_eq!((table.count(1), table.count(5)), (2, 0));
        let changed = table.change(2, 5, Mode::Audit).expect("is there");
        assert_eq!((changed.slot, changed.mode, table.count(1), table.count(5)), (5, Mode::Audit, 1, 1));
        table.change(2, 5, Mode::Enforce);
        table.remove(2);
        assert_eq!((table.count(1), table.count(5)), (1, 0));
    }

    #[test]
    fn a_late_removal_leaves_the_newer_agent_of_the_same_cgroup() {
        let mut table = Table::default();
        let (first, second) = (table.next_number(), table.next_number());
        table.add(agent(first, "a", 7));
        table.add(agent(second, "a", 7));
        table.remove(first);
        assert_eq!(table.by_id("a").map(|agent| agent.number), Some(second));
        assert_eq!(table.by_cgroup(7).map(|agent| agent.number), Some(second));
    }
}
