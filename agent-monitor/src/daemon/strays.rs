//! Agents of which the kernel did not get to tell: their announcement or their end found no room in the ring, or was taken
//! out of it by a daemon that ended before it had written it. What is counted and what is bound tells of them all the same,
//! so none of them stays unknown, and none stays in the list for ever.

use std::collections::HashSet;
use std::sync::Arc;

use agent_monitor_common::binding::{Binding, EMPTY_SLOT};
use agent_monitor_common::class::Mode;
use agent_monitor_common::counter::AgentCounters;
use anyhow::{Context, Result};

use super::directory::numbered;
use super::node::Node;
use super::restore::Roots;
use super::selftest;
use crate::bind::{Agent, Origin};

/// Agents that seem to be strays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// They are counted for and nothing is bound to them, and nobody knows them.
    ended: HashSet<u32>,
    /// They are known, and nothing is bound to them.
    unbound: HashSet<u32>,
    /// Something is bound to them, and nobody knows them.
    unknown: HashSet<u32>,
}

/// What is done about strays.
#[derive(Debug)]
pub enum Search {
    /// Nothing points to any.
    Done,
    /// There may be some.
    Due,
    /// All that is in the rings now is waited for.
    Waiting(Strays),
    /// It is written, so whoever is left is one.
    Passed(Strays),
}

impl Strays {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those that are in both.
    fn and(&self, other: &Self) -> Self {
        let both = |a: &HashSet<u32>, b: &HashSet<u32>| a & b;
        Self {
            ended: both(&self.ended, &other.ended),
            unbound: both(&self.unbound, &other.unbound),
            unknown: both(&self.unknown, &other.unknown),
        }
    }
}

impl Node {
    /// Goes on with the search; `true` where somebody must say, by [`Self::strays_passed`], when all is written that is in
    /// the rings now.
    pub fn look_for_strays(&mut self, roots: &Roots<'_>) -> bool {
        match self.strays {
            Search::Done if !self.directory.has_strangers() => return false,
            Search::Waiting(_) => return false,
            _ => {}
        }
        let before = std::mem::replace(&mut self.strays, Search::Due);
        match self.search(before, roots) {
            Ok(search) => self.strays = search,
            Err(error) => tracing::error!("cannot look for agents that the kernel did not tell of: {error:#}"),
        }
        matches!(self.strays, Search::Waiting(_))
    }

    /// Has agents looked for of which the kernel did not get to tell.
    pub fn suspect_strays(&mut self) {
        if matches!(self.strays, Search::Done) {
            self.strays = Search::Due;
        }
    }

    /// Takes note that all is written that was in the rings.
    pub fn strays_passed(&mut self) {
        if let Search::Waiting(strays) = std::mem::replace(&mut self.strays, Search::Due) {
            self.strays = Search::Passed(strays);
        }
    }

    fn search(&mut self, before: Search, roots: &Roots<'_>) -> Result<Search> {
        let bindings = self.programs.bindings().context("cannot read which cgroups are bound")?;
        let found = self.find(&bindings)?;
        let Search::Passed(strays) = before else {
            let is_done = found.is_empty() && !self.directory.has_found();
            return Ok(if is_done { Search::Done } else { Search::Waiting(found) });
        };
        self.tell_found();
        let strays = strays.and(&found);
        if strays.is_empty() {
            return Ok(Search::Due);
        }
        tracing::warn!(
            ended = strays.ended.len() + strays.unbound.len(),
            made = strays.unknown.len(),
            "agents came or went of which the kernel did not get to tell"
        );
        strays.unbound.iter().for_each(|number| self.leave(*number, "exited"));
        strays.ended.iter().for_each(|number| self.end_unknown(*number));
        if !strays.unknown.is_empty() {
            self.meet(&strays.unknown, &bindings, roots)?;
        }
        Ok(Search::Due)
    }

    /// Tells of the agents that were found in the kernel, and whose announcement an earlier daemon took out of the ring.
    fn tell_found(&mut self) {
        for number in self.directory.take_found() {
            let agent = self.directory.table().get(number).cloned();
            if let Some(agent) = agent.filter(|agent| !agent.tally.has_begun()) {
                self.tell_agent("started", &agent, None);
            }
        }
    }

    fn find(&self, bindings: &[(u64, Binding)]) -> Result<Strays> {
        let counted = self.programs.agent_numbers().context("cannot read the agents' counters")?;
        let counted: HashSet<u32> = counted.into_iter().collect();
        let bound: HashSet<u32> = bindings.iter().map(|(_, binding)| binding.agent).collect();
        let table = self.directory.table();
        let is_stranger = |number: &&u32| table.get(**number).is_none() && !self.ended.contains(number);
        for number in self.directory.strangers() {
            // The operations of somebody who has left came late, or it has been announced since.
            if !counted.contains(&number) || !is_stranger(&&number) {
                self.directory.met(number);
            }
        }
        let known = table.iter().filter(|agent| agent.origin.is_agent() && !self.is_leaving(agent.number));
        Ok(Strays {
            ended: counted.difference(&bound).filter(is_stranger).copied().collect(),
            unbound: known.map(|agent| agent.number).filter(|number| !bound.contains(number)).collect(),
            unknown: (&bound & &counted).iter().filter(is_stranger).copied().collect(),
        })
    }

    /// Ends an agent of which nothing is known but its number and its counts. Where nothing was counted there is nothing to
    /// tell: it may be a number that the kernel gave, and that nobody needed.
    fn end_unknown(&mut self, number: u32) {
        let counters = self.programs.agent_counters(number);
        if counters.is_ok_and(|counters| counters == AgentCounters::NONE) {
            self.directory.met(number);
            self.forget_agent(number);
            return;
        }
        let agent = Agent {
            number,
            identity: Arc::new(numbered(number, 0)),
            cgroup: None,
            origin: Origin::Below,
            slot: EMPTY_SLOT,
            mode: Mode::Enforce,
            mode_fixed: false,
            limit: None,
            tally: self.directory.met(number).unwrap_or_default(),
        };
        self.directory.table_mut().add(agent);
        self.leave(number, "exited");
    }

    /// Makes agents of those that are bound, each with the uppermost of its cgroups.
    fn meet(&mut self, numbers: &HashSet<u32>, bindings: &[(u64, Binding)], roots: &Roots<'_>) -> Result<()> {
        let paths = self.paths_of_cgroups()?;
        let met: Vec<Agent> = self
            .unknown(bindings, &paths)
            .into_iter()
            .filter(|(number, found)| {
                // One without a path was removed since the bindings were read, and is found among those that ended.
                found.path.is_some_and(|path| numbers.contains(number) && !selftest::is_own(path, roots.run))
            })
            .map(|(number, found)| self.derived(number, found.id, found.path, found.binding, roots))
            .collect();
        for mut agent in met {
            agent.tally = self.directory.met(agent.number).unwrap_or_default();
            if let Some(state) = &mut self.state {
                state.put_agent(&agent);
            }
            self.directory.table_mut().add(agent.clone());
            self.tell_agent("started", &agent, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_left_once_all_is_written_is_a_stray() {
        let strays = |ended: &[u32], unbound: &[u32], unknown: &[u32]| Strays {
            ended: ended.iter().copied().collect(),
            unbound: unbound.iter().copied().collect(),
            unknown: unknown.iter().copied().collect(),
        };
        let before = strays(&[1, 2], &[3], &[4]);
        assert_eq!(before.and(&strays(&[2, 5], &[4], &[4])), strays(&[2], &[], &[4]));
        assert!(before.and(&Strays::default()).is_empty() && !before.is_empty());
    }
}
