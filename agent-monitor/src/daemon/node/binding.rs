//! Agents of the node: their cgroups bound, bound to something else, and unbound again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use agent_monitor_common::binding::{Binding, flags};
use agent_monitor_common::class::Mode;
use anyhow::{Context, Result};

use super::Node;
use crate::bind::{Agent, Cgroup, Limit, Origin, Table, shown};
use crate::daemon::directory::free_id;
use crate::record::AgentRef;

/// What an agent is bound to, and as what.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its id; made from its policy and cgroup where it is not given.
    pub id: Option<String>,
    /// Its name; the id where it is not given.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Slot of its policy.
    pub slot: u32,
    /// Its mode; the policy's where it is not given.
    pub mode: Option<Mode>,
    /// How its cgroup became an agent's.
    pub origin: Origin,
    /// When its binding ends; none where it does not.
    pub limit: Option<Limit>,
}

impl Wanted {
    /// Bound to this slot, with nothing given for it.
    pub fn new(slot: u32, origin: Origin) -> Self {
        Self { id: None, name: None, labels: BTreeMap::new(), slot, mode: None, origin, limit: None }
    }
}

/// What an agent that is bound gets, under the same id.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Slot of its policy.
    pub slot: u32,
    /// Its mode; the policy's where it is not given.
    pub mode: Option<Mode>,
    /// Its name; the id where it is not given.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When its binding ends; none where it does not.
    pub limit: Option<Limit>,
}

impl Node {
    /// Makes a cgroup and binds it, before anything can be in it.
    ///
    /// # Errors
    /// The cgroup exists, or the kernel refuses; nothing is left then.
    pub fn make(&mut self, path: &str, wanted: Wanted) -> Result<Agent> {
        let directory = self.directory.clone();
        // Held until the agent is in the table, so that the kernel's announcement of the cgroup finds it there.
        let mut table = directory.table_mut();
        let cgroup = directory.hierarchy.make(path).with_context(|| format!("cannot make the cgroup {path}"))?;
        let bound = self.bind_with(&mut table, &cgroup, wanted);
        if bound.is_err() {
            // Nobody could have gone in: only its id was ever known.
            let _ = directory.hierarchy.remove(&cgroup.path);
        }
        bound
    }

    /// Binds a cgroup that is there, with all below it.
    ///
    /// # Errors
    /// The kernel refuses; nothing is bound then.
    pub fn bind(&mut self, cgroup: &Cgroup, wanted: Wanted) -> Result<Agent> {
        let directory = self.directory.clone();
        let mut table = directory.table_mut();
        self.bind_with(&mut table, cgroup, wanted)
    }

    fn bind_with(&mut self, table: &mut Table, cgroup: &Cgroup, wanted: Wanted) -> Result<Agent> {
        let agent = self.agent(table, cgroup, wanted);
        let failed = || format!("cannot bind the cgroup {}", shown(&cgroup.path));
        if self.policies.watches_syscalls(agent.slot) {
            self.programs.watch_syscalls(true).with_context(failed)?;
        }
        self.note_number(agent.number);
        if agent.origin != Origin::Test
            && let Err(error) = self.note_limited(&agent)
        {
            if let Some(state) = &mut self.state {
                state.drop_agent(agent.number);
            }
            return Err(error).with_context(failed);
        }
        if let Err(error) = self.write_new(&agent) {
            self.unbind(&agent);
            let _ = self.programs.remove_agent(agent.number);
            if let Some(state) = &mut self.state {
                state.drop_agent(agent.number);
            }
            return Err(error).with_context(failed);
        }
        table.add(agent.clone());
        let action = if agent.origin == Origin::Made { "started" } else { "bound" };
        self.tell_agent(action, &agent, None);
        Ok(agent)
    }

    /// The agent that a cgroup is to be, with a number of its own.
    fn agent(&self, table: &mut Table, cgroup: &Cgroup, wanted: Wanted) -> Agent {
        let policy = self.directory.policy(wanted.slot);
        let id = wanted.id.unwrap_or_else(|| free_id(table, &policy.name, &shown(Path::new(cgroup.name())), cgroup.id));
        let identity = AgentRef {
            name: wanted.name.unwrap_or_else(|| id.clone()),
            id,
            cgroup_id: cgroup.id,
            cgroup: Some(shown(&cgroup.path)),
            labels: wanted.labels,
        };
        Agent {
            number: table.next_number(),
            identity: Arc::new(identity),
            cgroup: Some(cgroup.path.clone()),
            origin: wanted.origin,
            slot: wanted.slot,
            mode: wanted.mode.unwrap_or_else(|| self.policies.mode(wanted.slot)),
            mode_fixed: wanted.mode.is_some(),
            limit: wanted.limit,
            tally: Arc::default(),
        }
    }

    fn write_new(&mut self, agent: &Agent) -> Result<()> {
        self.programs.add_agent(agent.number)?;
        self.programs.bind(agent.identity.cgroup_id, binding(agent))?;
        self.write_below(agent)
    }

    /// Writes the binding of an agent's cgroup anew, if it is still bound; for a whole agent also of all cgroups below it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rewrite_bindings(&mut self, agent: &Agent) -> Result<()> {
        let id = agent.identity.cgroup_id;
        if self.programs.binding(id)?.is_some() {
            self.programs.rebind(id, binding(agent))?;
            self.write_below(agent)?;
        }
        Ok(())
    }

    /// Binds what lies below an agent's own cgroup, which is bound already, and each after the one above it: the kernel binds
    /// what is made in one that is bound.
    fn write_below(&mut self, agent: &Agent) -> Result<()> {
        let Some(top) = agent.place().filter(|_| agent.origin != Origin::Directory) else { return Ok(()) };
        let wanted = binding(agent);
        self.directory.hierarchy.settle(&top, |cgroup| {
            let differs = self.programs.binding(cgroup.id)? != Some(wanted);
            if differs {
                self.programs.bind(cgroup.id, wanted)?;
            }
            anyhow::Ok(differs)
        })
    }

    /// Binds an agent's cgroup to another slot.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rebind(&mut self, number: u32, slot: u32) -> Result<()> {
        self.rebind_as(number, slot, "bound")
    }

    /// The same, told with this action.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rebind_as(&mut self, number: u32, slot: u32, action: &str) -> Result<()> {
        let mode = self.policies.mode(slot);
        self.rebind_in(number, slot, mode, action)
    }

    fn rebind_in(&mut self, number: u32, slot: u32, mode: Mode, action: &str) -> Result<()> {
        let changed = self.directory.table_mut().change(number, slot, mode);
        if let Some(agent) = changed {
            if self.policies.watches_syscalls(slot) {
                self.programs.watch_syscalls(true).context("cannot bind an agent anew")?;
            }
            if let Some(state) = &mut self.state {
                state.put_agent(&agent);
            }
            self.rewrite_bindings(&agent)?;
            self.tell_agent(action, &agent, None);
            self.settle_watching();
        }
        Ok(())
    }

    /// Gives an agent another policy, mode, name, labels and end, under the same id.
    ///
    /// # Errors
    /// The kernel refuses, or a new end can't be written down: then nothing has changed.
    pub fn renew_agent(&mut self, number: u32, renewal: Renewal) -> Result<()> {
        let Some(before) = self.directory.table().get(number).cloned() else { return Ok(()) };
        let Renewal { slot, mode, name, labels, limit } = renewal;
        self.set_limit(number, limit.clone())?;
        self.directory.table_mut().describe(number, name, labels, mode.is_some());
        let mode = mode.unwrap_or(self.policies.mode(slot));
        if before.slot != slot || before.mode != mode {
            return self.rebind_in(number, slot, mode, "bound");
        }
        let after = self.directory.table().get(number).cloned();
        if let Some(agent) = after {
            if let Some(state) = &mut self.state {
                state.put_agent(&agent);
            }
            if before.limit != limit {
                self.tell_agent("bound", &agent, None);
            }
        }
        Ok(())
    }

    /// Unbinds the cgroups of an agent, each after the one above it: what is made in one that is still bound would be bound,
    /// too. What is another agent's by now stays so.
    pub fn unbind(&mut self, agent: &Agent) {
        let unbound = self.unbind_from(agent.identity.cgroup_id, agent.number).map(drop);
        let below = agent.place().map_or(Ok(()), |top| {
            let hierarchy = self.directory.hierarchy.clone();
            hierarchy.settle(&top, |cgroup| self.unbind_from(cgroup.id, agent.number))
        });
        for error in [unbound, below].into_iter().filter_map(Result::err) {
            tracing::warn!(agent = agent.identity.id, "cannot unbind a cgroup: {error:#}");
        }
    }
}

impl Node {
    /// Unbinds a cgroup where it is bound to the agent with this number.
    fn unbind_from(&mut self, cgroup: u64, number: u32) -> Result<bool> {
        let bound = self.programs.binding(cgroup)?.is_some_and(|binding| binding.agent == number);
        if bound {
            self.programs.unbind(cgroup)?;
        }
        Ok(bound)
    }
}

/// What the cgroups of an agent are bound to.
fn binding(agent: &Agent) -> Binding {
    let flags = if agent.origin == Origin::Directory { flags::ANNOUNCE_CHILDREN } else { 0 };
    Binding::new(agent.slot, agent.number, agent.mode as u32, flags)
}
