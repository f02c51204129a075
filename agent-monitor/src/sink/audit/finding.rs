//! What is found in an audit log that was not left so, or is done to it: each is told by a record in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::record::{Body, LineHash, Loss, Record, clock};

/// What it is; the word is the record's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The last line is not the one that was written last: the chain starts anew.
    ChainBroken,
    /// Records at the end that were written are not there: the chain starts anew.
    TailMissing,
    /// The last line was cut off when it was written.
    LineCutOff,
    /// The file was made shorter while it was written.
    Truncated,
    /// The file was removed while it was written.
    Deleted,
    /// Somebody else wrote into the file.
    Appended,
    /// It is not noted, or can't be read, which record was written last.
    HeadMissing,
    /// The oldest files were removed, as the settings ask for.
    Expired,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ChainBroken,
        Self::TailMissing,
        Self::LineCutOff,
        Self::Truncated,
        Self::Deleted,
        Self::Appended,
        Self::HeadMissing,
        Self::Expired,
    ];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChainBroken => "chain_broken",
            Self::TailMissing => "tail_missing",
            Self::LineCutOff => "line_cut_off",
            Self::Truncated => "truncated",
            Self::Deleted => "deleted",
            Self::Appended => "appended",
            Self::HeadMissing => "head_missing",
            Self::Expired => "expired",
        }
    }

    /// What this word means.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// Place among what is told together: a record that starts a chain is its first, and one about a line that was cut off
    /// stands behind that line.
    pub fn rank(self) -> u8 {
        match self {
            _ if self.starts_anew() => 0,
            Self::LineCutOff => 1,
            _ => 2,
        }
    }

    /// Whether the record that tells of it starts a chain.
    pub fn starts_anew(self) -> bool {
        matches!(self, Self::ChainBroken | Self::TailMissing)
    }
}

/// How often each was found.
#[derive(Debug, Default)]
pub struct Found([AtomicU64; Reason::ALL.len()]);

impl Found {
    /// Counts one.
    pub fn add(&self, reason: Reason) {
        for (_, counter) in Reason::ALL.iter().zip(&self.0).filter(|(one, _)| **one == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0.iter().map(|counter| counter.load(Ordering::Relaxed)))
    }
}

/// One of them, where, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub reason: Reason,
    /// Name of the file.
    pub file: String,
    /// What is missing lies after the record with this number.
    pub after_seq: Option<u64>,
    /// What is missing lies before the record with this number.
    pub before_seq: Option<u64>,
    /// Hash of the last line that is missing, or of the one that should be there.
    pub last_hash: Option<LineHash>,
    /// For people.
    pub detail: String,
}

impl Finding {
    /// The record that tells of it. How many records are missing is not known, or told where they were lost.
    pub fn record(&self, node_name: &Arc<str>) -> Record {
        let loss = Loss {
            stage: "audit".to_owned(),
            reason: self.reason.name().to_owned(),
            after_seq: self.after_seq,
            before_seq: self.before_seq,
            file: Some(self.file.clone()),
            last_hash: self.last_hash,
            detail: Some(self.detail.clone()),
            ..Loss::default()
        };
        Record { time: clock::now(), seq: None, node_name: node_name.clone(), body: Body::Loss(loss) }
    }
}
