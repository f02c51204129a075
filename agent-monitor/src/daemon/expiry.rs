//! Bindings that were made for a time. When it is over the agent is bound to `empty`: it may do nothing, and is never free.
//! The kernel knows no time, so this happens while a daemon runs, and first of all when one starts.

use agent_monitor_common::binding::EMPTY_SLOT;
use anyhow::{Result, bail};

use super::node::Node;
use super::serve::Daemon;
use crate::bind::{Agent, Limit, Now};

impl Daemon {
    /// Binds each agent whose time is over to `empty`. What fails is tried again at the next call, and is a reason not to be
    /// ready until then.
    pub async fn expire(&mut self) {
        let now = Now::read(&self.boot_id);
        let is_due = |agent: &&Agent| {
            let due = agent.limit.as_ref().is_some_and(|limit| !limit.expired && limit.is_over(&now));
            due && !self.node.is_leaving(agent.number)
        };
        let due: Vec<Agent> = self.node.directory.table().iter().filter(is_due).cloned().collect();
        self.overdue.clear();
        let mut ended = Vec::new();
        for agent in due {
            let id = &agent.identity.id;
            match self.node.rebind_as(agent.number, EMPTY_SLOT, "expired") {
                Ok(()) => {
                    tracing::info!(agent = id, "the time of a binding is over; the agent may do nothing any more");
                    self.node.drop_unused(agent.slot);
                    ended.push(agent.number);
                }
                Err(error) => {
                    let message = format!("the time of agent {id} is over, and it can't be bound to empty: {error:#}");
                    tracing::error!("{message}");
                    self.overdue.push(message);
                }
            }
        }
        if ended.is_empty() {
            return;
        }
        self.node.write().await;
        self.node.stream.flush().await;
        // Only now: a daemon that is killed before it is recorded leaves that to the next one.
        for number in ended {
            self.node.note_expired(number);
            self.bindings_expired += 1;
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
        let limit = self.directory.table().get(number).and_then(|agent| agent.limit.clone());
        let Some(limit) = limit else { return };
        if let Err(error) = self.set_limit(number, Some(limit.into_expired())) {
            // Tried again at the next tick, and recorded again: told twice is better than never.
            tracing::warn!("{error:#}");
        }
    }
}
