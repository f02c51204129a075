//! How far the operations of one agent have come. What the kernel counts less what is written here is lost.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one agent's operations that left the kernel.
#[derive(Debug, Default)]
pub struct Tally {
    denied: AtomicU64,
    audited: AtomicU64,
    written: AtomicU64,
    folded: AtomicU64,
}

impl Tally {
    /// Goes on with the counts of an earlier daemon, before anything is counted here.
    pub fn restore(&self, denied: u64, written: u64, folded: u64, audited: u64) {
        self.denied.store(denied, Ordering::Release);
        self.written.store(written, Ordering::Release);
        self.folded.store(folded, Ordering::Release);
        self.audited.store(audited, Ordering::Release);
    }

    /// Takes note of denials and of operations that enforcing would have denied of which nothing will ever come.
    pub fn give_up(&self, denied: u64, audited: u64) {
        self.denied.fetch_add(denied, Ordering::Release);
        self.audited.fetch_add(audited, Ordering::Release);
    }

    /// Takes note of denials, `count` of which are one record, that have come to their end: in the audit log, where there
    /// is one, or lost on the way to it.
    pub fn add_denied(&self, count: u64, written: bool) {
        if written {
            self.written.fetch_add(1, Ordering::Release);
            self.folded.fetch_add(count.saturating_sub(1), Ordering::Release);
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

    /// Records of denials that are written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Denials that those records count in addition.
    pub fn folded(&self) -> u64 {
        self.folded.load(Ordering::Acquire)
    }
}
