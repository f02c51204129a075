//! Bindings that were made for a time. When it is over the agent is bound to `empty`: it may do nothing, and is never free.
//! The kernel knows no time, so this happens while a daemon runs, and first of all when one starts.

use agent_monitor_common::binding::EMPTY_SLOT;
use anyhow::{Result, bail};
use tokio::sync::oneshot;

use super::node::Node;
use super::serve::Daemon;
use crate::bind::{Agent, Limit, Now};

/// Agents whose time is over, and of which that is not written down yet.
#[derive(Debug, Default)]
pub struct Expired {
    /// The record of it may not be written.
    told: Vec<u32>,
    /// The same, and who says when it is.
    marked: Vec<u32>,
    mark: Option<oneshot::Receiver<()>>,
}

impl Daemon {
    /// Binds each agent whose time is over to `empty`. What fails is tried again at the next call, and is a reason not to be
    /// ready until then.
    pub fn expire(&mut self) {
        let now = Now::read(&self.boot_id);
        let is_due = |agent: &&Agent| {
            let due = agent.limit.as_ref().is_some_and(|limit| !limit.expired && limit.is_over(&now));
            due && !self.node.is_leaving(agent.number)
        };
        let due: Vec<Agent> = self.node.directory.table().iter().filter(is_due).cloned().collect();
        self.overdue.clear();
        for agent in due {
            let id = &agent.identity.id;
            match self.node.rebind_as(agent.number, EMPTY_SLOT, "expired") {
                Ok(()) => {
                    tracing::info!(agent = id, "the time of a binding is over; the agent may do nothing any more");
                    self.node.drop_unused(agent.slot);
                    let limit = agent.limit.map(Limit::into_expired);
                    self.node.directory.table_mut().limit(agent.number, limit);
                    self.expired.told.push(agent.number);
                    self.bindings_expired += 1;
                }
                Err(error) => {
                    let message = format!("the time of agent {id} is over, and it can't be bound to empty: {error:#}");
                    tracing::error!("{message}");
                    self.overdue.push(message);
                }
            }
        }
    }

    /// Writes down whose time is over once that is recorded: a daemon that is killed before leaves it to the next one to tell.
    pub fn note_expired(&mut self) {
        if let Some(mut mark) = self.expired.mark.take() {
            if matches!(mark.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                self.expired.mark = Some(mark);
                return;
            }
            for number in std::mem::take(&mut self.expired.marked) {
                self.node.note_expired(number);
            }
        }
        if !self.expired.told.is_empty() && self.node.write_before() {
            self.expired.mark = self.node.outbox.mark();
            if self.expired.mark.is_some() {
                self.expired.marked = std::mem::take(&mut self.expired.told);
            }
        }
    }
}

impl Node {
    /// Gives an agent another end, and writes it down.
    ///
    /// # Errors
    /// It can't be written down, so a later daemon would not know it; the agent has the end that it had.
    pub fn set_limit(&mut self, number: u32, limit: Option<Limit>) -> Result<()> {
        let Some((agent, before)) = self.directory.table_mut().limit(number, limit) else { return Ok(()) };
        let noted = self.note_limited(&agent);
        if noted.is_err() {
            self.directory.table_mut().limit(number, before);
        }
        noted
    }

    /// Writes down who an agent is, and that its binding ends.
    ///
    /// # Errors
    /// It ends, and that can't be written down.
    pub fn note_limited(&mut self, agent: &Agent) -> Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        state.put_agent(agent);
        if let Some(failure) = state.failure().filter(|_| agent.limit.is_some()) {
            bail!("cannot write down when the binding ends, so that a later daemon ends it: {failure}");
        }
        Ok(())
    }

    fn note_expired(&mut self, number: u32) {
        let agent = self.directory.table().get(number).cloned();
        // It may have been bound for another time since.
        if let Some(agent) = agent.filter(|agent| agent.limit.as_ref().is_some_and(|limit| limit.expired))
            && let Err(error) = self.note_limited(&agent)
        {
            // The next daemon tells it again: told twice is better than never.
            tracing::warn!("{error:#}");
        }
    }
}
