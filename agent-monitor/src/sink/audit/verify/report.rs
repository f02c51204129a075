//! What verifying found.

use serde::Serialize;

use crate::record::LineHash;

/// Problems that are kept with their place; of more there is the number.
const KEPT: usize = 1000;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub intact: bool,
    /// The files in the order in which they were read.
    pub files: Vec<FileReport>,
    /// Records in them.
    pub records: u64,
    /// Number of the first record.
    pub first_seq: Option<u64>,
    /// Number of the last record.
    pub last_seq: Option<u64>,
    /// Hash of its line: what a log that goes on from here begins after.
    pub last_hash: Option<LineHash>,
    /// Where the log begins: `new`, `expired` (what was before was removed as the settings ask, which a record says), `after`
    /// (the hash that was asked for), `not_checked`, `missing`, `changed` (the first line was), `empty`.
    pub start: &'static str,
    /// The record that was written last: `found`, `missing`, `not_checked`.
    pub head: &'static str,
    /// Why it was not checked.
    pub head_not_checked: Option<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// How much is wrong, with what had no room among the problems.
    pub problems_total: u64,
    /// What is told and is nothing wrong.
    pub notes: Vec<Problem>,
    /// The same for these.
    pub notes_total: u64,
}

/// A file that was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileReport {
    /// Its path.
    pub path: String,
    /// Lines in it.
    pub lines: u64,
    /// Number of its first record.
    pub first_seq: Option<u64>,
    /// Number of its last record.
    pub last_seq: Option<u64>,
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line in it, from 1.
    pub line: Option<u64>,
    /// Number of the record, as far as it can be read.
    pub seq: Option<u64>,
    /// What it is, in a word.
    pub problem: &'static str,
    /// For people.
    pub detail: String,
}

impl Report {
    /// Takes down what is wrong.
    pub fn wrong(&mut self, problem: Problem) {
        self.problems_total += 1;
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }

    /// Takes down what is nothing wrong.
    pub fn note(&mut self, note: Problem) {
        self.notes_total += 1;
        if self.notes.len() < KEPT {
            self.notes.push(note);
        }
    }
}
