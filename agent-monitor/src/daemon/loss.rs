//! Losses in the kernel: what the rings had no room for is counted there for each agent, and becomes records here.

mod unwritten;

use std::collections::HashMap;
use std::sync::atomic::Ordering;

pub use unwritten::Awaited;
use unwritten::{Missing, Unwritten};

use super::node::Node;
use crate::record::{Body, Loss};

/// Reason of a loss: the ring for denials was full.
pub const DENIALS_RING_FULL: &str = "denials_ring_full";
/// The other ring was.
pub const TELEMETRY_RING_FULL: &str = "telemetry_ring_full";

/// Reason of a loss: the daemon that had taken these denials out of the ring ended before it had written them.
pub const DENIALS_NOT_WRITTEN: &str = "denials_not_written";
/// The same for other events.
pub const TELEMETRY_NOT_WRITTEN: &str = "telemetry_not_written";

/// Reason of a loss: the log took nothing for so long that these records of the daemon's own had no room to wait.
pub const RECORDS_NOT_WRITTEN: &str = "records_not_written";

/// Losses that have become records.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Denials, of all agents.
    pub denials: u64,
    /// Other events.
    pub telemetry: u64,
    /// Denials that an earlier daemon had taken out of the ring and not written, as this one has told.
    pub denials_not_written: u64,
    /// Other events of which this is so.
    pub telemetry_not_written: u64,
    by_agent: HashMap<u32, u64>,
    unwritten: Unwritten,
    last_seq: u64,
    /// What was lost while nobody looked may be told by the agents' counters alone.
    look: bool,
}

impl Losses {
    /// Losses of which an earlier daemon has told.
    pub fn restore(denials: u64, telemetry: u64, by_agent: impl Iterator<Item = (u32, u64)>) -> Self {
        Self { denials, telemetry, by_agent: by_agent.collect(), look: true, ..Self::default() }
    }

    /// Has each agent's counters looked at once more.
    pub fn look(&mut self) {
        self.look = true;
    }

    /// How many of an agent's denials are told of as lost.
    pub fn told(&self, number: u32) -> u64 {
        self.by_agent.get(&number).copied().unwrap_or(0)
    }

    /// Forgets an agent that is gone.
    pub fn forget(&mut self, number: u32) {
        self.by_agent.remove(&number);
        self.unwritten.forget(number);
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
        if new_denials > 0 || std::mem::take(&mut self.losses.look) {
            let agents: Vec<(u32, String)> =
                self.directory.table().iter().map(|agent| (agent.number, agent.identity.id.clone())).collect();
            for (number, id) in agents {
                let lost = self.programs.agent_counters(number).map_or(0, |counters| counters.lost);
                let before = self.losses.told(number);
                // Less than before where a part is counted in the maps of a build that is being taken over from.
                if lost > before {
                    self.losses.by_agent.insert(number, lost);
                    left = left.saturating_sub(lost - before);
                    self.tell_loss(DENIALS_RING_FULL, lost - before, Some(id));
                }
            }
        }
        if left > 0 {
            self.tell_loss(DENIALS_RING_FULL, left, None);
        }
        if new_telemetry > 0 {
            self.suspect_strays();
            self.tell_loss(TELEMETRY_RING_FULL, new_telemetry, None);
        }
        self.losses.last_seq = self.stream.totals().last_seq.load(Ordering::Relaxed);
    }

    /// What must be written of each agent, of those that come from the rings.
    pub fn awaited(&self, numbers: &[u32]) -> Vec<Awaited> {
        let read = |number: &u32| {
            let counters = self.programs.agent_counters(*number).ok()?;
            let audited = counters.audited.iter().sum::<u64>().saturating_sub(counters.telemetry_lost);
            Some(Awaited { number: *number, emitted: counters.emitted, audited })
        };
        numbers.iter().filter_map(read).collect()
    }

    /// Tells what an earlier daemon took out of the rings and did not write, now that all that was in them is written. Gives the
    /// agents of which not all can be said, because more has come meanwhile.
    pub fn tell_missing(&mut self, awaited: &[Awaited]) -> Vec<u32> {
        let mut left = Vec::new();
        for before in awaited {
            let Some(agent) = self.directory.table().get(before.number).cloned() else { continue };
            let now = self.awaited(&[before.number]);
            let (denied, audited) = (agent.tally.denied(), agent.tally.audited());
            let Missing { denials, telemetry, is_all } =
                self.losses.unwritten.judge(before, now.first(), denied, audited);
            if !is_all {
                left.push(before.number);
            }
            agent.tally.give_up(denials, telemetry);
            self.losses.denials_not_written += denials;
            self.losses.telemetry_not_written += telemetry;
            for (reason, count) in [(DENIALS_NOT_WRITTEN, denials), (TELEMETRY_NOT_WRITTEN, telemetry)] {
                if count > 0 {
                    self.tell_loss_of("daemon", reason, count, Some(agent.identity.id.clone()));
                }
            }
        }
        left
    }

    fn tell_loss(&mut self, reason: &str, count: u64, agent: Option<String>) {
        self.tell_loss_of("kernel", reason, count, agent);
    }

    fn tell_loss_of(&mut self, stage: &str, reason: &str, count: u64, agent: Option<String>) {
        let after_seq = Some(self.losses.last_seq);
        let (stage, reason) = (stage.to_owned(), reason.to_owned());
        self.tell(Body::Loss(Loss { stage, reason, count, agent, after_seq, ..Loss::default() }));
    }
}
