//! How far the operations of one agent have come. What the kernel counts less what is written here is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agent_monitor_common::class::{CLASSES, Class};

/// Counts of one agent's operations that left the kernel.
#[derive(Debug, Default)]
pub struct Tally {
    denied: AtomicU64,
    audited: AtomicU64,
    told: [Told; CLASSES],
    begun: AtomicBool,
}

/// Denials of one class that are in records.
#[derive(Debug, Default)]
struct Told {
    written: AtomicU64,
    folded: AtomicU64,
}

impl Tally {
    /// Goes on with the counts of an earlier daemon, before anything is counted here; `told` as [`Self::told`].
    pub fn restore(&self, denied: u64, audited: u64, told: [[u64; 2]; CLASSES]) {
        self.denied.store(denied, Ordering::Release);
        self.audited.store(audited, Ordering::Release);
        for (ours, [written, folded]) in self.told.iter().zip(told) {
            ours.written.store(written, Ordering::Release);
            ours.folded.store(folded, Ordering::Release);
        }
    }

    /// Takes note that it is told that there is such an agent.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether it is told that there is such an agent.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Takes note of denials and of operations that enforcing would have denied of which nothing will ever come.
    pub fn give_up(&self, denied: u64, audited: u64) {
        self.denied.fetch_add(denied, Ordering::Release);
        self.audited.fetch_add(audited, Ordering::Release);
    }

    /// Takes note of denials, `count` of which are one record, that have come to their end: in the audit log, where there
    /// is one, or lost on the way to it.
    pub fn add_denied(&self, class: Class, count: u64, written: bool) {
        if written {
            let told = &self.told[class as usize];
            told.written.fetch_add(1, Ordering::Release);
            told.folded.fetch_add(count.saturating_sub(1), Ordering::Release);
        }
        self.denied.fetch_add(count, Ordering::Release);
    }

    /// Takes note of an operation that enforcing would have denied.
    pub fn add_audited(&self) {
        self.audited.fetch_add(1, Ordering::Release);
    }

    /// Denials that have come to their end.
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Acquire)
    }

    /// Operations that enforcing would have denied.
    pub fn audited(&self) -> u64 {
        self.audited.load(Ordering::Acquire)
    }

    /// By class: records of denials that are written, and denials that those count in addition.
    pub fn told(&self) -> [[u64; 2]; CLASSES] {
        let load = |number: &AtomicU64| number.load(Ordering::Acquire);
        std::array::from_fn(|class| [load(&self.told[class].written), load(&self.told[class].folded)])
    }
}
