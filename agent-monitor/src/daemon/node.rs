//! The node: the programs in the kernel, and what they are told. All changes of bindings and images go through here, so
//! that the kernel, the directory and the records say the same.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_monitor_common::binding::{Binding, EMPTY_SLOT, flags};
use agent_monitor_common::class::{Mode, SyscallEnforcement};
use agent_monitor_policy::Policy;
use anyhow::{Context, Result};

use super::VERSION;
use super::directory::{Directory, Loaded, free_id};
use super::leave::Leaving;
use super::library::Compiler;
use super::loss::Losses;
use super::misses::Misses;
use super::policies::{Candidate, Instance, Policies, Source};
use super::restore::Roots;
use super::state::{Numbers, State};
use crate::bind::{Agent, Cgroup, Origin, Table, shown};
use crate::bpf::Programs;
use crate::record::{AgentChange, AgentRef, Body, Counts, MonitorChange, PolicyChange, PolicyRef, Record, clock};
use crate::sink::Stream;
use crate::support::Level;

/// The node.
pub struct Node {
    /// The programs and their maps.
    pub programs: Programs,
    /// What everybody looks up.
    pub directory: Arc<Directory>,
    /// The policies that are loaded.
    pub policies: Policies,
    /// Takes the records.
    pub stream: Stream,
    node_name: Arc<str>,
    /// Compiles policies for this node.
    pub compiler: Compiler,
    /// Agents on their way out.
    pub leaving: Vec<Leaving>,
    records: Vec<Record>,
    /// Losses that have become records.
    pub losses: Losses,
    /// What a later daemon must know again; none where there will be no later one.
    pub state: Option<State>,
    /// Numbers that were given, as they are written down.
    pub numbers: Numbers,
    /// Programs that the kernel skipped.
    pub misses: Misses,
}

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
}

impl Node {
    /// A node with the built-in policy in its slot, and the agents that were taken over.
    ///
    /// # Errors
    /// The kernel refused the image, or to tell what is in its maps.
    pub fn new(
        programs: Programs,
        directory: Arc<Directory>,
        stream: Stream,
        node_name: Arc<str>,
        compiler: Compiler,
        takes_over: Option<(State, Roots<'_>)>,
    ) -> Result<Self> {
        let (state, roots) = takes_over.unzip();
        let mut node = Self {
            programs,
            directory,
            policies: Policies::default(),
            stream,
            node_name,
            compiler,
            leaving: Vec::new(),
            records: Vec::new(),
            losses: Losses::default(),
            state,
            numbers: Numbers::default(),
            misses: Misses::default(),
        };
        if let Some(roots) = roots {
            node.restore(&roots)?;
        }
        let empty =
            Candidate::new(&Policy::empty(), &node.compiler.protected).context("the built-in policy has no image")?;
        if !node.policies.unchanged(EMPTY_SLOT, &empty) {
            node.put(EMPTY_SLOT, Source::Builtin, Arc::new(empty))?;
        }
        Ok(node)
    }

    /// Puts a policy into a free slot.
    ///
    /// # Errors
    /// All slots are taken, or the kernel refused the image.
    pub fn load(&mut self, source: Source, candidate: Arc<Candidate>) -> Result<u32> {
        let slot = self
            .policies
            .free_slot()
            .context("all slots for policies are taken; remove policies that no agent needs")?;
        self.put(slot, source, candidate)?;
        Ok(slot)
    }

    /// Replaces the policy in a slot. Agents that follow the policy's mode follow its change.
    ///
    /// # Errors
    /// The kernel refused the image; the old one stays.
    pub fn put(&mut self, slot: u32, source: Source, candidate: Arc<Candidate>) -> Result<()> {
        let name = candidate.name.clone();
        let before = self.policies.get(slot).map(|one| one.mode());
        let generation = self.policies.next_generation(&name);
        let bytes = candidate.image(generation);
        if candidate.syscall_enforcement == SyscallEnforcement::Kill && self.directory.table().count(slot) > 0 {
            self.programs.watch_syscalls(true).with_context(|| format!("cannot load the policy {name}"))?;
        }
        if let Some(state) = &mut self.state {
            state.put_policy(slot, &source, &candidate);
        }
        self.note_numbers();
        // First where events are looked up, then in the kernel: no event comes from an image that nobody knows.
        self.directory.set_image(slot, Loaded::new(&name, generation, bytes.clone()));
        if let Err(error) = self.programs.set_image(slot, &bytes) {
            self.directory.take_back(slot);
            // A later daemon puts in force what the state says.
            match (self.policies.get(slot).is_some(), &mut self.state) {
                (true, _) => self.note_policy(slot),
                (false, Some(state)) => state.drop_policy(slot),
                (false, None) => {}
            }
            return Err(error).with_context(|| format!("cannot load the policy {name}"));
        }
        let action = if before.is_some() { "replaced" } else { "loaded" };
        let watched = self.policies.get(slot).is_some_and(Instance::watches_syscalls);
        let mode = candidate.mode;
        let (path, messages) = (candidate.path.clone(), candidate.messages.clone());
        self.policies.put(slot, generation, source, candidate);
        if slot != EMPTY_SLOT {
            self.tell_policy(action, self.directory.policy(slot), Some(path), messages);
        }
        if before.is_some_and(|before| before != mode) {
            self.follow_mode(slot, mode)?;
        }
        if watched {
            self.settle_watching();
        }
        Ok(())
    }

    /// Takes a policy that no agent has out of its slot.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn unload(&mut self, slot: u32) -> Result<()> {
        let policy = self.directory.policy(slot);
        let Some(removed) = self.policies.remove(slot) else { return Ok(()) };
        self.programs.clear_image(slot).with_context(|| format!("cannot remove the policy {}", policy.name))?;
        self.directory.clear_image(slot);
        if let Some(state) = &mut self.state {
            state.drop_policy(slot);
        }
        // That one whose file is gone was removed is told already, see `Catalogue::remove`.
        if removed.source != Source::Removed {
            self.tell_policy("removed", policy, Some(removed.candidate.path.clone()), Vec::new());
        }
        Ok(())
    }

    /// Says where the policy in a slot comes from now.
    pub fn set_source(&mut self, slot: u32, source: Source) {
        self.policies.set_source(slot, source);
        self.note_policy(slot);
    }

    /// Takes a newer document of a policy that means the same.
    pub fn renew(&mut self, slot: u32, candidate: Arc<Candidate>) {
        let known = self.policies.get(slot).is_some_and(|one| Arc::ptr_eq(&one.candidate, &candidate));
        if !known {
            self.policies.renew(slot, candidate);
            self.note_policy(slot);
        }
    }

    fn note_policy(&mut self, slot: u32) {
        if let (Some(state), Some(one)) = (&mut self.state, self.policies.get(slot)) {
            state.put_policy(slot, &one.source, &one.candidate);
        }
    }

    /// Writes down the numbers that were given.
    fn note_numbers(&mut self) {
        let (generations, last_slot) = self.policies.numbers();
        self.numbers.generations.clone_from(generations);
        self.numbers.last_slot = last_slot;
        if let Some(state) = &mut self.state {
            state.put_numbers(&self.numbers);
        }
    }

    /// Takes note that a number is given to an agent. Many are written down as given at once.
    fn note_number(&mut self, number: u32) {
        const AT_ONCE: u32 = 256;
        if number >= self.numbers.next_agent {
            self.numbers.next_agent = number.saturating_add(AT_ONCE);
            self.note_numbers();
        }
    }

    /// Stops looking at system calls once no agent's policy asks for it.
    pub fn settle_watching(&mut self) {
        let asks = |agent: &Agent| self.policies.get(agent.slot).is_some_and(Instance::watches_syscalls);
        let wanted = self.directory.table().iter().any(asks);
        if !wanted && let Err(error) = self.programs.watch_syscalls(false) {
            tracing::warn!(%error, "cannot stop looking at system calls, for which no policy asks any more");
        }
    }

    fn follow_mode(&mut self, slot: u32, mode: Mode) -> Result<()> {
        let follows = |agent: &&Agent| agent.slot == slot && !agent.mode_fixed;
        let numbers: Vec<u32> = self.directory.table().iter().filter(follows).map(|agent| agent.number).collect();
        for number in numbers {
            let changed = self.directory.table_mut().change(number, slot, mode);
            if let Some(agent) = changed {
                self.rewrite_bindings(&agent)?;
            }
        }
        Ok(())
    }

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
        let policy = self.directory.policy(wanted.slot);
        let number = table.next_number();
        let id = wanted.id.unwrap_or_else(|| free_id(table, &policy.name, &shown(Path::new(cgroup.name())), cgroup.id));
        let instance_mode = self.policies.get(wanted.slot).map_or(Mode::Enforce, |one| one.mode());
        let identity = AgentRef {
            name: wanted.name.unwrap_or_else(|| id.clone()),
            id,
            cgroup_id: cgroup.id,
            cgroup: Some(shown(&cgroup.path)),
            labels: wanted.labels,
        };
        let agent = Agent {
            number,
            identity: Arc::new(identity),
            cgroup: Some(cgroup.path.clone()),
            origin: wanted.origin,
            slot: wanted.slot,
            mode: wanted.mode.unwrap_or(instance_mode),
            mode_fixed: wanted.mode.is_some(),
            tally: Arc::default(),
        };
        let failed = || format!("cannot bind the cgroup {}", shown(&cgroup.path));
        if self.policies.get(agent.slot).is_some_and(Instance::watches_syscalls) {
            self.programs.watch_syscalls(true).with_context(failed)?;
        }
        self.note_number(number);
        if let Some(state) = self.state.as_mut().filter(|_| agent.origin != Origin::Test) {
            state.put_agent(&agent);
        }
        if let Err(error) = self.write_new(&agent) {
            self.unbind(&agent);
            let _ = self.programs.remove_agent(number);
            if let Some(state) = &mut self.state {
                state.drop_agent(number);
            }
            return Err(error).with_context(failed);
        }
        table.add(agent.clone());
        let action = if agent.origin == Origin::Made { "started" } else { "bound" };
        self.tell_agent(action, &agent, None);
        Ok(agent)
    }

    fn write_new(&mut self, agent: &Agent) -> Result<()> {
        self.programs.add_agent(agent.number)?;
        self.programs.bind(agent.identity.cgroup_id, binding(agent))?;
        self.write_below(agent)
    }

    /// Writes the binding of an agent's cgroup anew, if it is still bound; for a whole agent also of all cgroups below it.
    pub fn rewrite_bindings(&mut self, agent: &Agent) -> Result<()> {
        let id = agent.identity.cgroup_id;
        if self.programs.binding(id)?.is_some() {
            self.programs.rebind(id, binding(agent))?;
            self.write_below(agent)?;
        }
        Ok(())
    }

    /// After its own cgroup, and in each after the one above it: what is made from now on gets the binding from the kernel.
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
        let mode = self.policies.get(slot).map_or(Mode::Enforce, |one| one.mode());
        self.rebind_as(number, slot, mode)
    }

    fn rebind_as(&mut self, number: u32, slot: u32, mode: Mode) -> Result<()> {
        let changed = self.directory.table_mut().change(number, slot, mode);
        if let Some(agent) = changed {
            if self.policies.get(slot).is_some_and(Instance::watches_syscalls) {
                self.programs.watch_syscalls(true).context("cannot bind an agent anew")?;
            }
            if let Some(state) = &mut self.state {
                state.put_agent(&agent);
            }
            self.rewrite_bindings(&agent)?;
            self.tell_agent("bound", &agent, None);
            self.settle_watching();
        }
        Ok(())
    }

    /// Gives an agent another policy, mode, name and labels, under the same id.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn renew_agent(
        &mut self,
        number: u32,
        slot: u32,
        mode: Option<Mode>,
        name: Option<String>,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let before = self.directory.table().get(number).cloned();
        let policy_mode = self.policies.get(slot).map_or(Mode::Enforce, |one| one.mode());
        self.directory.table_mut().describe(number, name, labels, mode.is_some());
        let mode = mode.unwrap_or(policy_mode);
        if before.is_some_and(|agent| agent.slot == slot && agent.mode == mode) {
            if let (Some(state), Some(agent)) = (&mut self.state, self.directory.table().get(number)) {
                state.put_agent(agent);
            }
            return Ok(());
        }
        self.rebind_as(number, slot, mode)
    }

    /// Takes an agent out of the table without a word: its cgroup is bound anew.
    pub fn forget(&mut self, number: u32) {
        self.directory.table_mut().remove(number);
        if let Err(error) = self.programs.remove_agent(number) {
            tracing::warn!(%error, "cannot remove counters that no agent needs");
        }
        if let Some(state) = &mut self.state {
            state.drop_agent(number);
        }
        self.settle_watching();
    }

    /// Removes a policy that an agent brought, if no agent has it.
    pub fn drop_unused(&mut self, slot: u32) {
        let source = self.policies.get(slot).map(|instance| instance.source.clone());
        let unused = self.directory.table().count(slot) == 0;
        let temporary = matches!(source, Some(Source::Agent | Source::Removed));
        if unused
            && temporary
            && let Err(error) = self.unload(slot)
        {
            tracing::warn!("cannot remove a policy that no agent needs any more: {error:#}");
        }
    }

    /// Unbinds the cgroups of an agent, each after the one above it, of which what is made in it would get its binding.
    pub fn unbind(&mut self, agent: &Agent) {
        let unbound = self.programs.unbind(agent.identity.cgroup_id).map_err(anyhow::Error::from);
        let below = agent.place().map_or(Ok(()), |top| {
            self.directory.hierarchy.settle(&top, |cgroup| {
                let bound = self.programs.binding(cgroup.id)?.is_some();
                self.programs.unbind(cgroup.id)?;
                anyhow::Ok(bound)
            })
        });
        for error in [unbound, below].into_iter().filter_map(Result::err) {
            tracing::warn!(agent = agent.identity.id, "cannot unbind a cgroup: {error:#}");
        }
    }

    /// Makes a record about an agent.
    pub fn tell_agent(&mut self, action: &str, agent: &Agent, counts: Option<Counts>) {
        if agent.origin == Origin::Test {
            return;
        }
        let change = AgentChange {
            action: action.to_owned(),
            mode: agent.mode.name().to_owned(),
            policy: self.directory.policy(agent.slot),
            agent: agent.identity.clone(),
            counts,
        };
        self.tell(Body::Agent(Box::new(change)));
    }

    /// Makes a record about a policy.
    pub fn tell_policy(&mut self, action: &str, policy: PolicyRef, source: Option<String>, messages: Vec<String>) {
        self.tell(Body::Policy(PolicyChange { action: action.to_owned(), policy, source, messages }));
    }

    /// Makes a record about the monitor itself.
    pub fn tell_monitor(&mut self, action: &str, level: Level, messages: Vec<String>) {
        let (version, enforcement) = (VERSION.to_owned(), level.name().to_owned());
        self.tell(Body::Monitor(MonitorChange { action: action.to_owned(), version, enforcement, messages }));
    }

    /// Makes a record.
    pub fn tell(&mut self, body: Body) {
        self.records.push(Record { time: clock::now(), seq: None, node_name: self.node_name.clone(), body });
    }

    /// Hands the records made so far to the stream.
    pub async fn write(&mut self) {
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.stream.write(records).await;
        }
    }

    /// Empties the cgroup of an agent and waits, blocking the thread, until nothing is left in it. Says whether anything
    /// was.
    ///
    /// # Errors
    /// Something can't be killed.
    pub fn empty(directory: &Directory, cgroup: &Path, limit: Duration) -> io::Result<bool> {
        let populated = directory.hierarchy.populated(cgroup)?;
        if populated {
            directory.hierarchy.kill(cgroup)?;
            directory.hierarchy.wait_empty(cgroup, limit)?;
        }
        Ok(populated)
    }
}

/// What the cgroups of an agent are bound to.
fn binding(agent: &Agent) -> Binding {
    let flags = if agent.origin == Origin::Directory { flags::ANNOUNCE_CHILDREN } else { 0 };
    Binding::new(agent.slot, agent.number, agent.mode as u32, flags)
}
