//! Losses in the kernel: what the rings had no room for is counted there for each agent, and becomes records here.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::node::Node;
use crate::record::{Body, Loss};

/// Reason of a loss: the ring for denials was full.
pub const DENIALS_RING_FULL: &str = "denials_ring_full";
/// The other ring was.
pub const TELEMETRY_RING_FULL: &str = "telemetry_ring_full";

/// Losses that have become records.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Denials, of all agents.
    pub denials: u64,
    /// Other events.
    pub telemetry: u64,
    by_agent: HashMap<u32, u64>,
    last_seq: u64,
}

impl Losses {
    /// Losses of which an earlier daemon has told.
    pub fn restore(denials: u64, telemetry: u64, by_agent: impl Iterator<Item = (u32, u64)>) -> Self {
        Self { denials, telemetry, by_agent: by_agent.collect(), last_seq: 0 }
    }

    /// How many of an agent's denials are told of as lost.
    pub fn told(&self, number: u32) -> u64 {
        self.by_agent.get(&number).copied().unwrap_or(0)
    }

    /// Forgets an agent that is gone.
    pub fn forget(&mut self, number: u32) {
        self.by_agent.remove(&number);
    }
}

impl Node {
    /// Makes records of what the rings had no room for since the last time.
    pub fn check_losses(&mut self) {
        let Ok(counters) = self.programs.counters() else { return };
        let (denials, telemetry) = (counters.denials_lost(), counters.telemetry_lost());
        let new_denials = denials.saturating_sub(self.losses.denials);
        let new_telemetry = telemetry.saturating_sub(self.losses.telemetry);
        (self.losses.denials, self.losses.telemetry) = (denials, telemetry);
        let mut left = new_denials;
        if new_denials > 0 {
            let agents: Vec<(u32, String)> =
                self.directory.table().iter().map(|agent| (agent.number, agent.identity.id.clone())).collect();
            for (number, id) in agents {
                let lost = self.programs.agent_counters(number).map_or(0, |counters| counters.lost);
                let before = self.losses.by_agent.insert(number, lost).unwrap_or(0);
                if lost > before {
                    left = left.saturating_sub(lost - before);
                    self.tell_loss(DENIALS_RING_FULL, lost - before, Some(id));
                }
            }
        }
        if left > 0 {
            self.tell_loss(DENIALS_RING_FULL, left, None);
        }
        if new_telemetry > 0 {
            self.tell_loss(TELEMETRY_RING_FULL, new_telemetry, None);
        }
        self.losses.last_seq = self.stream.totals().last_seq.load(Ordering::Relaxed);
    }

    fn tell_loss(&mut self, reason: &str, count: u64, agent: Option<String>) {
        let after_seq = Some(self.losses.last_seq);
        let (stage, reason) = ("kernel".to_owned(), reason.to_owned());
        self.tell(Body::Loss(Loss { stage, reason, count, agent, after_seq, before_seq: None }));
    }
}
