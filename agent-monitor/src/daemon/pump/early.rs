//! Denials that come before the announcement of their agent. The announcement is in the other ring before them, but nothing
//! can be read of a ring behind an entry that another processor has not finished (`BPF_RINGBUF_BUSY_BIT`, which
//! `__bpf_ringbuf_reserve()` in `kernel/bpf/ringbuf.c` sets). It comes in the next moment, and until then they wait here.

use std::time::{Duration, Instant};

use agent_monitor_common::binding::FIRST_KERNEL_AGENT;

use super::Decoded;
use crate::event::Subject;

/// Longest wait for an announcement: one that comes later was lost, or taken out of the ring by an earlier daemon.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// Most that wait; what comes then is written without the name of its agent.
const MOST: usize = 4096;

/// What waits, in the order in which it came.
#[derive(Default)]
pub struct Early(Vec<(Instant, u32, Decoded)>);

impl Early {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something waits that came by then.
    pub fn has_since(&self, then: Instant) -> bool {
        self.0.iter().any(|(since, _, _)| *since <= then)
    }

    /// Takes what is early out of a batch, and puts what has waited for an announcement in it behind that.
    pub fn sort(&mut self, batch: Vec<Decoded>, is_known: impl Fn(u32) -> bool) -> Vec<Decoded> {
        let mut sorted = Vec::with_capacity(batch.len());
        // Announced in this batch, and known once it is written.
        let mut announced = Vec::new();
        for entry in batch {
            let Ok(event) = &entry else {
                sorted.push(entry);
                continue;
            };
            let number = event.header.agent;
            match event.subject() {
                Subject::CgroupMade { .. } => {
                    announced.push(number);
                    sorted.push(entry);
                    self.take_if(&mut sorted, |_, waits| waits == number);
                }
                Subject::Operation
                    if number >= FIRST_KERNEL_AGENT
                        && self.0.len() < MOST
                        && !announced.contains(&number)
                        && !is_known(number) =>
                {
                    self.0.push((Instant::now(), number, entry));
                }
                _ => sorted.push(entry),
            }
        }
        sorted
    }

    /// What has waited long enough.
    pub fn take_due(&mut self) -> Vec<Decoded> {
        let mut due = Vec::new();
        self.take_if(&mut due, |since, _| since.elapsed() >= PATIENCE);
        due
    }

    /// All that waits.
    pub fn take_all(&mut self) -> Vec<Decoded> {
        let mut all = Vec::new();
        self.take_if(&mut all, |_, _| true);
        all
    }

    fn take_if(&mut self, into: &mut Vec<Decoded>, is: impl Fn(Instant, u32) -> bool) {
        into.extend(self.0.extract_if(.., |(since, number, _)| is(*since, *number)).map(|(_, _, entry)| entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Observed;
    use agent_monitor_common::class::{Reason, Verdict};
    use agent_monitor_common::event::{EVENT_VERSION, EventHeader, HEADER_BYTES, kind};
    use agent_monitor_common::hook::HookId;
    use std::mem::offset_of;

    fn event(kind: u8, agent: u32, sequence: u64) -> Decoded {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, number: &[u8]| bytes[at..at + number.len()].copy_from_slice(number);
        put(offset_of!(EventHeader, version), &EVENT_VERSION.to_ne_bytes());
        put(offset_of!(EventHeader, kind), &[kind]);
        put(offset_of!(EventHeader, hook), &(HookId::FileOpen as u16).to_ne_bytes());
        put(offset_of!(EventHeader, verdict), &[Verdict::Deny as u8]);
        put(offset_of!(EventHeader, reason), &[Reason::NoRule as u8]);
        put(offset_of!(EventHeader, agent), &agent.to_ne_bytes());
        put(offset_of!(EventHeader, sequence), &sequence.to_ne_bytes());
        Observed::decode(&bytes)
    }

    fn sequences(events: &[Decoded]) -> Vec<u64> {
        events.iter().flatten().map(|event| event.header.sequence).collect()
    }

    #[test]
    fn what_comes_before_its_announcement_is_put_behind_it() {
        let (new, known) = (FIRST_KERNEL_AGENT | 7, FIRST_KERNEL_AGENT | 8);
        let mut early = Early::default();
        let operation = |agent, sequence| event(kind::OPERATION, agent, sequence);
        let first = vec![operation(new, 2), operation(known, 3), operation(5, 4)];
        let is_known = |number| number == known;
        assert_eq!(sequences(&early.sort(first, is_known)), [3, 4]);
        assert!(!early.is_empty());
        let second = vec![event(kind::CGROUP_MADE, new, 1), operation(new, 6)];
        assert_eq!(sequences(&early.sort(second, is_known)), [1, 2, 6]);
        assert!(early.is_empty() && early.take_all().is_empty());
    }

    #[test]
    fn what_is_never_announced_holds_marks_up_until_its_time_is_over() {
        let mut early = Early::default();
        let (never, before) = (FIRST_KERNEL_AGENT | 9, Instant::now());
        assert!(!early.has_since(before));
        assert!(early.sort(vec![event(kind::OPERATION, never, 1)], |_| false).is_empty());
        let mark = Instant::now();
        assert!(early.has_since(mark) && !early.has_since(before));
        while mark.elapsed() < PATIENCE {
            std::thread::sleep(PATIENCE / 10);
        }
        assert_eq!(sequences(&early.take_due()), [1]);
        assert!(!early.has_since(mark));
    }
}
