//! Policies in their slots: put there, replaced, taken out, and what follows from it for the agents that have them.

use std::sync::Arc;

use agent_monitor_common::binding::EMPTY_SLOT;
use agent_monitor_common::class::{Mode, SyscallEnforcement};
use anyhow::{Context, Result};

use super::Node;
use crate::bind::Agent;
use crate::daemon::directory::Loaded;
use crate::daemon::policies::{Candidate, Source};

impl Node {
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
        self.directory.set_image(slot, Loaded::new(&name, generation, candidate.shared_image()));
        if let Err(error) = self.programs.set_image(slot, &bytes) {
            self.take_back(slot);
            return Err(error).with_context(|| format!("cannot load the policy {name}"));
        }
        let action = if before.is_some() { "replaced" } else { "loaded" };
        let watched = self.policies.watches_syscalls(slot);
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

    /// Says of a slot what was in it before, because the kernel did not take the policy that should replace it.
    fn take_back(&mut self, slot: u32) {
        self.directory.take_back(slot);
        // A later daemon puts in force what the state says.
        match (self.policies.get(slot).is_some(), &mut self.state) {
            (true, _) => self.note_policy(slot),
            (false, Some(state)) => state.drop_policy(slot),
            (false, None) => {}
        }
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
        // One whose file is gone was told of when that was seen, see `Catalogue::remove`.
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

    /// Stops looking at system calls once no agent's policy asks for it.
    pub fn settle_watching(&mut self) {
        let asks = |agent: &Agent| self.policies.watches_syscalls(agent.slot);
        let wanted = self.directory.table().iter().any(asks);
        if !wanted && let Err(error) = self.programs.watch_syscalls(false) {
            tracing::warn!(%error, "cannot stop looking at system calls, for which no policy asks any more");
        }
    }

    /// Removes a policy that an agent brought, or whose file is gone, if no agent has it.
    pub fn drop_unused(&mut self, slot: u32) {
        let source = self.policies.get(slot).map(|one| &one.source);
        let unused = self.directory.table().count(slot) == 0;
        let temporary = matches!(source, Some(Source::Agent | Source::Removed));
        if unused
            && temporary
            && let Err(error) = self.unload(slot)
        {
            tracing::warn!("cannot remove a policy that no agent needs any more: {error:#}");
        }
    }
}
