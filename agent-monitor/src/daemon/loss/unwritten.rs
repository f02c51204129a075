//! What an earlier daemon took out of the rings and did not write. It is a number that does not change any more, but while its
//! agent goes on being denied things only a part of it can be told from what is on its way.

use std::collections::HashMap;

/// What an agent's counters said, before all that was in the rings then was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    pub(super) number: u32,
    pub(super) emitted: u64,
    pub(super) audited: u64,
}

impl Awaited {
    /// The agent's number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// What is missing of an agent, and whether that is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub denials: u64,
    pub telemetry: u64,
    pub is_all: bool,
}

/// How many denials of each agent seemed to be missing, and are not told of.
#[derive(Clone, Debug, Default)]
pub(super) struct Unwritten(HashMap<u32, u64>);

impl Unwritten {
    /// What is missing, once all is written that was in the rings when the counters said `before`. They say `now` what they say,
    /// and so many operations have come to their end.
    pub fn judge(&mut self, before: &Awaited, now: Option<&Awaited>, denied: u64, audited: u64) -> Missing {
        // What came since is among those that have come to their end: so many are missing, or more.
        let denials = before.emitted.saturating_sub(denied);
        if now == Some(before) {
            self.forget(before.number);
            return Missing { denials, telemetry: before.audited.saturating_sub(audited), is_all: true };
        }
        // Only what is seen twice: an entry that another processor has not finished hides those behind it for a moment. Of other
        // events nothing is said, because they are counted before they are in the ring.
        let seen = self.0.entry(before.number).or_default();
        let sure = denials.min(*seen);
        *seen = denials - sure;
        Missing { denials: sure, telemetry: 0, is_all: false }
    }

    /// Forgets an agent of which all is told.
    pub fn forget(&mut self, number: u32) {
        self.0.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(emitted: u64) -> Awaited {
        Awaited { number: 7, emitted, audited: 0 }
    }

    /// An agent of which `missing` denials are missing, as the kernel and the log count.
    struct Agent {
        unwritten: Unwritten,
        emitted: u64,
        denied: u64,
        told: u64,
    }

    impl Agent {
        fn new(missing: u64) -> Self {
            Self { unwritten: Unwritten::default(), emitted: 1000 + missing, denied: 1000, told: 0 }
        }

        /// So many come while a mark passes, and are written; so many that came before it are hidden until it has passed.
        fn pass(&mut self, come: u64, hidden: u64) -> bool {
            self.emitted += hidden;
            let before = awaited(self.emitted);
            self.emitted += come;
            self.denied += come;
            let now = awaited(self.emitted);
            let missing = self.unwritten.judge(&before, Some(&now), self.denied, 0);
            // What is told is given up, and what was hidden is written after all.
            self.denied += missing.denials + hidden;
            self.told += missing.denials;
            missing.is_all
        }
    }

    #[test]
    fn what_is_sure_is_told_while_the_agent_is_busy_and_the_rest_once_it_pauses() {
        let mut agent = Agent::new(100);
        for (come, told) in [(10, 0), (30, 70), (5, 70), (5, 95), (200, 95), (1, 95)] {
            assert!(!agent.pass(come, 0));
            assert_eq!(agent.told, told, "after {come} more");
        }
        assert!(agent.pass(0, 0) && agent.told == 100);
        assert!(agent.pass(0, 0) && agent.told == 100, "it was told twice");
    }

    #[test]
    fn never_more_is_told_than_is_missing_however_much_comes_and_is_hidden_for_a_moment() {
        // Numbers that are as good as any, without a source of them.
        let mut number: u64 = 1;
        let mut next = |most: u64| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) % most
        };
        for missing in 0..50 {
            let mut agent = Agent::new(missing);
            for round in 0..40 {
                let come = 1 + next(40);
                // Never twice running.
                let hidden = if round % 2 == 0 { next(40) } else { 0 };
                assert!(!agent.pass(come, hidden));
                assert!(agent.told <= missing, "{} of {missing} are told", agent.told);
            }
            assert!(agent.pass(0, 0));
            assert_eq!(agent.told, missing);
            assert_eq!(agent.denied, agent.emitted);
        }
    }

    #[test]
    fn of_an_agent_whose_counters_are_gone_nothing_more_is_sure() {
        let mut unwritten = Unwritten::default();
        let missing = unwritten.judge(&awaited(5), None, 5, 0);
        assert_eq!(missing, Missing { denials: 0, telemetry: 0, is_all: false });
    }
}
