//! Taking over: what the maps in the kernel say is in force, and what the state says about it, become the node's own
//! knowledge again. Where the two differ the kernel is right; what a policy is to be is found later, see `catalogue::read`.
//! Nothing here takes a binding away from a cgroup that lives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_monitor_common::binding::{Binding, EMPTY_SLOT, FIRST_KERNEL_AGENT, flags};
use agent_monitor_common::class::Mode;
use agent_monitor_policy::ImageView;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::directory::{Loaded, derived_identity};
use super::node::Node;
use super::policies::Source;
use super::selftest;
use super::state::{self, AgentState};
use crate::bind::{Agent, Cgroup, Origin, from_root, shown};
use crate::bpf::Counted;
use crate::record::AgentRef;

/// What was counted for agents in maps that are not there any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Base {
    /// The numbers of each agent.
    agents: HashMap<u32, Vec<u64>>,
    /// Builds whose numbers are in it already, while their maps are still there.
    builds: Vec<String>,
}

impl Base {
    fn add(&mut self, counted: &Counted) {
        if self.builds.contains(&counted.build) {
            return;
        }
        for (number, counted) in &counted.agents {
            let sums = self.agents.entry(*number).or_default();
            sums.resize(sums.len().max(counted.len()), 0);
            sums.iter_mut().zip(counted).for_each(|(sum, counted)| *sum += counted);
        }
        self.builds.push(counted.build.clone());
    }
}

/// Writes down what was counted before.
fn note(path: &Path, base: &Base) {
    if let Err(error) = state::replace(path, base) {
        tracing::warn!(%error, "cannot write {}: a later daemon would count less", path.display());
    }
}

/// Where things of the daemon are.
pub struct Roots<'a> {
    /// Cgroup below which every cgroup is an agent's.
    pub agents: &'a str,
    /// Cgroup below which the self-test runs.
    pub run: &'a str,
    /// The audit log.
    pub log: &'a Path,
}

impl Node {
    /// Takes over what was pinned, or throws away the state of what is not there any more.
    ///
    /// # Errors
    /// The kernel refused to tell what is in its maps.
    pub fn restore(&mut self, roots: &Roots<'_>) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        if !self.programs.taken_over() {
            return state.clear().context("cannot remove the state of an earlier boot");
        }
        self.numbers = state.numbers();
        self.directory.table_mut().start_after(self.numbers.next_agent);
        self.programs.count_from(&state::read::<Base>(&state.path("base")).unwrap_or_default().agents);
        self.restore_policies()?;
        self.restore_agents(roots)?;
        self.restore_accounts(roots.log);
        self.suspect_strays();
        if self.directory.table().iter().any(|agent| self.policies.watches_syscalls(agent.slot)) {
            self.programs.watch_syscalls(true).context("cannot go on looking at system calls")?;
        }
        let unused: Vec<u32> = self.policies.iter().map(|one| one.slot).collect();
        unused.into_iter().for_each(|slot| self.drop_unused(slot));
        self.settle_watching();
        let (agents, policies) = (self.directory.table().iter().count(), self.policies.iter().count());
        tracing::info!(agents, policies, "taken over");
        Ok(())
    }

    /// Ends what other builds still did beside this one. Until now both bound new cgroups, and denied.
    ///
    /// # Errors
    /// The kernel refused to tell what is in its maps, or a pin could not be removed.
    pub fn finish_taking_over(&mut self) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        let path = state.path("base");
        let mut base: Base = state::read(&path).unwrap_or_default();
        let before = base.clone();
        for counted in self.programs.counted_before().context("cannot read what another build has counted")? {
            base.add(&counted);
        }
        let counted = self.programs.agent_numbers().context("cannot read the agents' counters")?;
        let table = self.directory.table();
        base.agents.retain(|number, _| table.get(*number).is_some() || counted.contains(number));
        drop(table);
        if base != before {
            note(&path, &base);
            self.programs.count_from(&base.agents);
            self.losses.look();
        }
        self.programs.forget_earlier()?;
        if !base.builds.is_empty() {
            base.builds.clear();
            note(&path, &base);
        }
        self.renumber()?;
        self.settles = true;
        Ok(())
    }

    /// A cgroup that was made while two builds with maps of their own were attached has a number of each.
    fn renumber(&mut self) -> Result<()> {
        let bindings: HashMap<u64, Binding> =
            self.programs.bindings().context("cannot read which cgroups are bound")?.into_iter().collect();
        let mut table = self.directory.table_mut();
        let other = |agent: &Agent| {
            let bound = bindings.get(&agent.identity.cgroup_id)?.agent;
            let is_other = bound != agent.number && !self.is_leaving(agent.number) && table.get(bound).is_none();
            is_other.then_some((agent.number, bound))
        };
        let changed: Vec<(u32, u32)> = table.iter().filter_map(other).collect();
        let mut moved = Vec::new();
        for (old, new) in changed {
            if let Some(agent) = table.remove(old) {
                let agent = Agent { number: new, ..agent };
                table.add(agent.clone());
                moved.push((old, agent));
            }
        }
        drop(table);
        for (old, agent) in moved {
            if let Some(state) = &mut self.state {
                state.put_agent(&agent);
            }
            self.forget_agent(old);
        }
        Ok(())
    }

    fn restore_policies(&mut self) -> Result<()> {
        let mut known = self.state.as_ref().map(|state| state.policies()).unwrap_or_default();
        self.policies.restore(&self.numbers);
        for slot in self.programs.slots().context("cannot read which policies are in force")? {
            let image = self.programs.image(slot).with_context(|| format!("cannot read the policy in slot {slot}"))?;
            let Some(image) = image else { continue };
            let Ok(view) = ImageView::parse(&image) else {
                tracing::error!(
                    slot,
                    "the policy in this slot can't be read; it stays in force for the agents that have it"
                );
                continue;
            };
            let (name, generation) = (view.policy_name().to_owned(), view.generation());
            let state = known.remove(&slot);
            let source = match &state {
                _ if slot == EMPTY_SLOT => Source::Builtin,
                Some(state) => Source::from_name(&state.source),
                // It is bound to nobody's file any more; it goes with the last agent that has it.
                None => Source::Removed,
            };
            let candidate = self.compiler.restored(&view, state);
            self.directory.set_image(slot, Loaded::new(&name, generation, candidate.shared_image()));
            self.policies.put(slot, generation, source, Arc::new(candidate));
        }
        for slot in known.into_keys() {
            // It was written down, and then never put in force.
            if let Some(state) = &mut self.state {
                state.drop_policy(slot);
            }
        }
        Ok(())
    }

    fn restore_agents(&mut self, roots: &Roots<'_>) -> Result<()> {
        let bindings = self.programs.bindings().context("cannot read which cgroups are bound")?;
        let counted: HashSet<u32> =
            self.programs.agent_numbers().context("cannot read the agents' counters")?.into_iter().collect();
        let by_cgroup: HashMap<u64, Binding> = bindings.iter().copied().collect();
        let paths = self.paths_of_cgroups()?;
        let mut states = self.state.as_ref().map(|state| state.agents()).unwrap_or_default();
        let bound = |state: &AgentState| by_cgroup.get(&state.cgroup_id).filter(|found| found.agent == state.number);
        // Those that go first: what they were called may be called so again.
        states.sort_by_key(|state| (bound(state).is_some(), state.number));
        for state in states {
            match bound(&state) {
                Some(binding) => self.take(&state, *binding, paths.get(&state.cgroup_id)),
                None if counted.contains(&state.number) => self.take_leave(&state),
                // It was written down, and then never bound.
                None => self.forget_state(state.number),
            }
        }
        for (number, Found { id, path, binding }) in self.unknown(&bindings, &paths) {
            // It was removed since the bindings were read. The kernel's announcement names it, or it is found as a stray.
            if path.is_none() && (number >= FIRST_KERNEL_AGENT || !counted.contains(&number)) {
                continue;
            }
            if let Some(path) = path.filter(|path| selftest::is_own(path, roots.run)) {
                selftest::remove_left(self, &Cgroup { path: path.clone(), id }, number);
                continue;
            }
            let agent = self.derived(number, id, path, binding, roots);
            if number >= FIRST_KERNEL_AGENT {
                self.directory.found(number);
            }
            if let Some(state) = self.state.as_mut().filter(|_| agent.origin == Origin::Below) {
                state.put_agent(&agent);
            }
            self.directory.table_mut().add(agent);
        }
        self.restore_bindings()
    }

    /// Binds all cgroups of each agent to what holds for it now: a daemon that was killed may have bound only a part of them
    /// anew, or none to a policy's new mode.
    fn restore_bindings(&mut self) -> Result<()> {
        let agents: Vec<Agent> = self.directory.table().iter().cloned().collect();
        for agent in agents {
            if self.is_leaving(agent.number) {
                continue;
            }
            let mode = self.policies.get(agent.slot).map(|one| one.mode()).filter(|_| !agent.mode_fixed);
            let agent = self.directory.table_mut().change(agent.number, agent.slot, mode.unwrap_or(agent.mode));
            if let Some(agent) = agent {
                self.rewrite_bindings(&agent)
                    .with_context(|| format!("cannot bind the cgroup {} again", agent.shown()))?;
            }
        }
        Ok(())
    }

    /// One that the kernel and the state know.
    fn take(&mut self, state: &AgentState, binding: Binding, path: Option<&PathBuf>) {
        let mode = state.mode().or_else(|| Mode::from_byte(binding.mode as u8)).unwrap_or(Mode::Enforce);
        let mut agent = Agent { cgroup: path.cloned(), ..agent(state, binding.slot, mode) };
        if let Some(path) = path {
            Arc::make_mut(&mut agent.identity).cgroup = Some(shown(path));
        }
        self.directory.table_mut().add(agent);
    }

    /// One that went while nobody looked: it is told with what was counted for it.
    fn take_leave(&mut self, state: &AgentState) {
        let mode = state.mode().unwrap_or(Mode::Enforce);
        self.directory.table_mut().add(agent(state, state.slot, mode));
        let there = self.directory.hierarchy.look_up(&state.cgroup).is_ok_and(|cgroup| cgroup.id == state.cgroup_id);
        self.leave(state.number, if there && state.origin() == Origin::Bound { "unbound" } else { "exited" });
    }

    fn forget_state(&mut self, number: u32) {
        if let Some(state) = &mut self.state {
            state.drop_agent(number);
        }
    }

    /// The paths of all cgroups by their ids.
    ///
    /// # Errors
    /// They can't be read.
    pub fn paths_of_cgroups(&self) -> Result<HashMap<u64, PathBuf>> {
        let hierarchy = &self.directory.hierarchy;
        let below = hierarchy.look_up("/").and_then(|root| hierarchy.descendants(&root));
        let below = below.context("cannot look for the paths of bound cgroups")?;
        Ok(below.into_iter().map(|cgroup| (cgroup.id, cgroup.path)).collect())
    }

    /// Agents that the kernel knows and the state does not: those that the kernel made, each with the uppermost of its
    /// cgroups. Only of one that has no other a cgroup is taken that is gone, and stays bound until nothing holds it.
    pub fn unknown<'a>(
        &self,
        bindings: &[(u64, Binding)],
        paths: &'a HashMap<u64, PathBuf>,
    ) -> BTreeMap<u32, Found<'a>> {
        let mut all: BTreeMap<u32, Found<'a>> = BTreeMap::new();
        let table = self.directory.table();
        for (id, binding) in bindings.iter().filter(|(_, binding)| table.get(binding.agent).is_none()) {
            let found = Found { id: *id, path: paths.get(id), binding: *binding };
            match all.get(&binding.agent) {
                Some(known) if known.level() <= found.level() => {}
                _ => drop(all.insert(binding.agent, found)),
            }
        }
        all
    }

    /// One that the kernel alone knows: who it is follows from its cgroup.
    pub fn derived(&self, number: u32, id: u64, path: Option<&PathBuf>, binding: Binding, roots: &Roots<'_>) -> Agent {
        let elsewhere = path.is_some_and(|path| !path.starts_with(from_root(roots.agents)));
        let origin = if binding.flags & flags::ANNOUNCE_CHILDREN != 0 {
            Origin::Directory
        } else if number < FIRST_KERNEL_AGENT && elsewhere {
            Origin::Bound
        } else {
            // One that is gone can't be unbound: it ends as those below the root do.
            Origin::Below
        };
        let policy = self.directory.policy(binding.slot).name;
        let name = path.and_then(|path| path.file_name());
        let identity = derived_identity(&self.directory.table(), &policy, name, id);
        let identity = AgentRef { cgroup: path.map(|path| shown(path)), ..identity };
        Agent {
            number,
            identity: Arc::new(identity),
            cgroup: path.cloned(),
            origin,
            slot: binding.slot,
            mode: Mode::from_byte(binding.mode as u8).unwrap_or(Mode::Enforce),
            mode_fixed: false,
            limit: None,
            tally: Arc::default(),
        }
    }
}

/// A cgroup that is bound; without a path it is gone.
pub struct Found<'a> {
    /// Its id.
    pub id: u64,
    /// Its path.
    pub path: Option<&'a PathBuf>,
    /// What it is bound to.
    pub binding: Binding,
}

impl Found<'_> {
    /// How deep it lies; one that is gone lies below all others.
    fn level(&self) -> usize {
        self.path.map_or(usize::MAX, |path| path.components().count())
    }
}

/// An agent as it was written down: its cgroup may be gone.
fn agent(state: &AgentState, slot: u32, mode: Mode) -> Agent {
    let path = (!state.cgroup.is_empty()).then(|| PathBuf::from(&state.cgroup));
    let identity = AgentRef {
        id: state.id.clone(),
        name: state.name.clone(),
        cgroup_id: state.cgroup_id,
        cgroup: path.as_deref().map(shown),
        labels: state.labels.clone(),
    };
    Agent {
        number: state.number,
        identity: Arc::new(identity),
        cgroup: path,
        origin: state.origin(),
        slot,
        mode,
        mode_fixed: state.mode.is_some(),
        limit: state.limit.clone(),
        tally: Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_has_counted_is_added_once() {
        let mut base = Base { agents: HashMap::from([(1, vec![5, 5])]), builds: Vec::new() };
        let counted = Counted { build: "b".to_owned(), agents: HashMap::from([(1, vec![1, 2, 3]), (2, vec![4])]) };
        base.add(&counted);
        base.add(&counted);
        assert_eq!(base.agents, HashMap::from([(1, vec![6, 7, 3]), (2, vec![4])]));
    }
}
