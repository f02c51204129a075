//! Agents that go: the last record of each is written after all its events, with what became of its denials.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use agent_monitor_common::class::CLASSES;
use agent_monitor_common::counter::AgentCounters;
use tokio::sync::oneshot;

use super::node::Node;
use crate::bind::{Agent, Origin};
use crate::record::{ClassCounts, Classes, Counts};

/// Longest wait for the next event of an agent that is gone to become a record. Then all is waited for that is in the rings:
/// what is told as lost must not be written afterwards, however slow the disk is.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// An agent that is gone, and whose last events may still be on their way.
pub struct Leaving {
    number: u32,
    action: &'static str,
    /// How many of its events have become records, and since when so many.
    seen: u64,
    since: Instant,
    /// All is written that was in the rings when it had waited too long.
    passed: bool,
}

/// Those that have waited too long, and the mark that was set in what is read for them.
pub struct Late {
    numbers: HashSet<u32>,
    mark: oneshot::Receiver<()>,
}

impl Leaving {
    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Node {
    /// Ends an agent; with the action `unbound` its cgroups are unbound now. Its last record is written once all its
    /// events are: see [`Self::settle`].
    pub fn leave(&mut self, number: u32, action: &'static str) {
        if self.is_leaving(number) {
            return;
        }
        let agent = self.directory.table().get(number).cloned();
        if let Some(agent) = agent.filter(|_| action == "unbound") {
            self.unbind(&agent);
        }
        self.leaving.push(Leaving { number, action, seen: 0, since: Instant::now(), passed: false });
        self.take_repeats.notify_one();
    }

    /// Whether an agent is on its way out.
    pub fn is_leaving(&self, number: u32) -> bool {
        self.leaving.iter().any(|leaving| leaving.number == number)
    }

    /// Takes leave of the agents whose events have all become records, or that have waited too long for it.
    pub fn settle(&mut self) -> Vec<(Agent, Counts)> {
        let mut left = Vec::new();
        self.look_at_mark();
        // The last record of an agent is the last to be left out.
        let waits = self.is_at_checkpoint() || self.is_behind();
        for mut leaving in std::mem::take(&mut self.leaving) {
            let Some(agent) = self.directory.table().get(leaving.number).cloned() else { continue };
            if !self.settles && agent.origin != Origin::Test {
                leaving.since = Instant::now();
                self.leaving.push(leaving);
                continue;
            }
            let counters = self.programs.agent_counters(leaving.number).unwrap_or_default();
            let audited: u64 = counters.audited.iter().sum();
            let settled =
                agent.tally.denied() >= counters.emitted && agent.tally.audited() + counters.telemetry_lost >= audited;
            let seen = agent.tally.denied() + agent.tally.audited();
            if seen != leaving.seen {
                (leaving.seen, leaving.since) = (seen, Instant::now());
            }
            if waits || !settled && !leaving.passed {
                self.leaving.push(leaving);
                continue;
            }
            // Before the first of them, and not for each: it looks at all agents where denials were lost.
            if left.is_empty() {
                self.check_losses();
            }
            left.push((agent.clone(), self.remove(&agent, leaving.action, &counters)));
        }
        self.set_mark();
        left
    }

    /// Sets a mark in what is read for those that have waited too long, if there is none yet.
    fn set_mark(&mut self) {
        let late = |leaving: &&Leaving| leaving.since.elapsed() >= SETTLE_LIMIT;
        let numbers: HashSet<u32> = self.leaving.iter().filter(late).map(Leaving::number).collect();
        if let Some(marks) = self.marks.as_ref().filter(|_| self.late.is_none() && !numbers.is_empty()) {
            self.late = Some(Late { numbers, mark: marks.set() });
        }
    }

    /// Takes note of those for whom all is written that was in the rings.
    fn look_at_mark(&mut self) {
        let Some(mut late) = self.late.take() else { return };
        if matches!(late.mark.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            self.late = Some(late);
            return;
        }
        for leaving in self.leaving.iter_mut().filter(|leaving| late.numbers.contains(&leaving.number)) {
            leaving.passed = true;
        }
    }

    fn remove(&mut self, agent: &Agent, action: &str, counters: &AgentCounters) -> Counts {
        // What has not come until now does not come any more.
        let awaited = self.awaited(&[agent.number]);
        self.tell_missing(&awaited);
        let counts = last_counts(agent, counters);
        self.tell_agent(action, agent, Some(counts));
        self.directory.table_mut().remove(agent.number);
        self.losses.forget(agent.number);
        match self.state {
            // Its counters stay until it is written down that its last record is written: a daemon that is killed before
            // leaves it to the next one to tell.
            Some(_) if agent.origin != Origin::Test => drop(self.ended.insert(agent.number)),
            _ => self.forget_agent(agent.number),
        }
        if self.policies.watches_syscalls(agent.slot) {
            self.settle_watching();
        }
        self.drop_unused(agent.slot);
        counts
    }

    /// Forgets agents of which it is written down that their last record is written.
    pub fn forget_ended(&mut self) {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        for number in noted {
            if self.ended.remove(&number) {
                self.forget_agent(number);
            }
        }
    }

    /// Removes an agent's counters, and what a later daemon would know of it.
    pub fn forget_agent(&mut self, number: u32) {
        if let Err(error) = self.programs.remove_agent(number) {
            tracing::warn!(%error, number, "cannot remove the counters of an agent");
        }
        if let Some(state) = &mut self.state {
            state.drop_agent(number);
        }
    }

    /// What the kernel and the daemon counted for an agent.
    pub fn counts(&self, agent: &Agent) -> Counts {
        counts(agent, &self.programs.agent_counters(agent.number).unwrap_or_default())
    }
}

/// What is known so far. What has left the kernel and is not written yet is neither written nor lost.
fn counts(agent: &Agent, counters: &AgentCounters) -> Counts {
    let told = agent.tally.told();
    let classes: [ClassCounts; CLASSES] = std::array::from_fn(|class| {
        let denied = counters.denied[class];
        let written = told[class][0].min(denied);
        ClassCounts { denied, written, folded: told[class][1].min(denied - written), lost: None }
    });
    let sum = |of: fn(&ClassCounts) -> u64| classes.iter().map(of).sum::<u64>();
    let (denied, written, folded) = (sum(|c| c.denied), sum(|c| c.written), sum(|c| c.folded));
    Counts {
        denied,
        audited: counters.audited.iter().sum(),
        faults: counters.faults,
        written,
        folded,
        lost: counters.lost + agent.tally.denied().saturating_sub(written + folded),
        classes: Classes(classes),
    }
}

/// What is known at the end: what is not written now will not be.
fn last_counts(agent: &Agent, counters: &AgentCounters) -> Counts {
    let mut counts = counts(agent, counters);
    for class in &mut counts.classes.0 {
        class.lost = Some(class.denied - class.written - class.folded);
    }
    Counts { lost: counts.denied - counts.written - counts.folded, ..counts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use agent_monitor_common::class::{Class, Mode};

    use crate::bind::Origin;

    #[test]
    fn at_the_end_denied_is_written_and_lost() {
        let agent = Agent {
            number: 1,
            identity: Arc::default(),
            cgroup: None,
            origin: Origin::Made,
            slot: 1,
            mode: Mode::Enforce,
            mode_fixed: false,
            limit: None,
            tally: Arc::default(),
        };
        let mut denied = [0; CLASSES];
        denied[0] = 10;
        let counters = AgentCounters { denied, emitted: 7, lost: 3, ..AgentCounters::default() };
        for (count, written) in [(1, true), (2, true), (1, false)] {
            agent.tally.add_denied(Class::File, count, written);
        }
        // Three of seven are still on their way; of the four that came one could not be written.
        let counts = counts(&agent, &counters);
        assert_eq!((counts.denied, counts.written, counts.folded, counts.lost), (10, 2, 1, 4));
        let counts = last_counts(&agent, &counters);
        assert_eq!((counts.denied, counts.written, counts.folded, counts.lost), (10, 2, 1, 7));
        assert_eq!(counts.classes.0[0], ClassCounts { denied: 10, written: 2, folded: 1, lost: Some(7) });
    }
}
