//! Following a chain line by line.

use std::collections::VecDeque;
use std::path::Path;

use serde::Deserialize;

use super::report::{FileReport, Problem, Report};
use super::{After, Checks};
use crate::record::LineHash;
use crate::record::chain::{Link, NoLink, read};
use crate::sink::audit::finding::Reason;
use crate::sink::audit::lines::Line;

/// What is needed of a record. Of other types than `loss` the number alone is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    seq: Option<u64>,
    #[serde(rename = "type")]
    kind: String,
    stage: String,
    reason: String,
    before_seq: Option<u64>,
    last_hash: Option<LineHash>,
    detail: Option<String>,
}

impl Told {
    /// What the record tells of the log, where it does.
    fn finding(&self) -> Option<Reason> {
        (self.kind == "loss" && self.stage == "audit").then(|| Reason::from_name(&self.reason))?
    }
}

/// Lines that may be cut off one after the other, on a disk that is full again and again.
const MOST_CUT_OFF: usize = 16;

/// The last record so far.
#[derive(Clone, Copy)]
struct Last {
    seq: u64,
    hash: LineHash,
    /// Its line was changed, so its hash may be another.
    changed: bool,
}

/// What is known so far.
pub(super) struct Checker<'a> {
    checks: &'a Checks,
    report: Report,
    file: FileReport,
    /// The number that the file's name says its first record has.
    named: Option<u64>,
    last: Option<Last>,
    /// The first record, and the line that must be before it.
    first: Option<(Problem, Option<LineHash>)>,
    /// The first record starts a chain anew.
    anew: bool,
    /// A record says that what was before the first one was removed.
    expired: bool,
    /// Lines that are no records: as many next ones may say that they were cut off.
    pending: VecDeque<Problem>,
    /// What is behind the last line.
    rest: Option<Problem>,
    head_seen: bool,
    head_differs: bool,
}

impl<'a> Checker<'a> {
    pub(super) fn new(checks: &'a Checks) -> Self {
        Self {
            checks,
            report: Report::default(),
            file: FileReport::default(),
            named: None,
            last: None,
            first: None,
            anew: false,
            expired: false,
            pending: VecDeque::new(),
            rest: None,
            head_seen: false,
            head_differs: false,
        }
    }

    /// The next file begins, in whose name this number stands.
    pub(super) fn file(&mut self, path: &Path, named: Option<u64>) {
        self.file = FileReport { path: path.display().to_string(), ..FileReport::default() };
        self.named = named;
    }

    pub(super) fn end_file(&mut self) {
        if let (Some(named), None) = (self.named, self.file.first_seq) {
            let detail = format!("the file has no record, and by its name it begins with record {named}");
            let problem = self.at(None, "wrong_name", detail);
            self.report.wrong(Problem { line: None, ..problem });
        }
        self.report.files.push(std::mem::take(&mut self.file));
    }

    fn at(&self, seq: Option<u64>, problem: &'static str, detail: String) -> Problem {
        Problem { file: self.file.path.clone(), line: Some(self.file.lines), seq, problem, detail }
    }

    /// The next line, in the last file or in one before it.
    pub(super) fn line(&mut self, line: &Line<'_>, last_file: bool) {
        self.file.lines += 1;
        if !line.ended {
            let detail = format!("{} bytes stand behind the last whole line", line.length);
            let problem = self.at(None, "cut_off", detail);
            if last_file {
                self.rest = Some(problem);
            } else {
                self.report.wrong(problem);
            }
            return;
        }
        let told: Option<Told> = serde_json::from_slice(line.bytes).ok();
        let seq = told.as_ref().and_then(|told| told.seq);
        let link = if line.too_long { Err(NoLink::Unsealed) } else { read(line.bytes) };
        match (link, told, seq) {
            (Ok(link), Some(told), Some(seq)) => self.record(link, &told, seq),
            (Err(NoLink::Changed { stated }), _, _) => {
                self.drop_pending();
                let detail = "its bytes do not give its hash: it was changed".to_owned();
                self.report.wrong(self.at(seq, "changed", detail));
                let seq = seq.or(self.last.map(|last| last.seq)).unwrap_or(0);
                self.last = Some(Last { seq, hash: stated, changed: true });
            }
            (link, _, _) => {
                let why =
                    link.err().map_or_else(|| "it is no record with a number".to_owned(), |error| error.to_string());
                self.pending.push_back(self.at(seq, "no_record", why));
                if self.pending.len() > MOST_CUT_OFF {
                    self.drop_pending();
                }
            }
        }
    }

    /// Lines that no other explains.
    fn drop_pending(&mut self) {
        self.pending.drain(..).for_each(|problem| self.report.wrong(problem));
    }

    fn record(&mut self, link: Link, told: &Told, seq: u64) {
        let finding = told.finding();
        let follows = self.last.is_some_and(|last| link.previous == Some(last.hash));
        if follows && finding == Some(Reason::LineCutOff) {
            if let Some(problem) = self.pending.pop_front() {
                let detail = format!("a line was cut off when it was written, as record {seq} says");
                self.report.note(Problem { problem: "cut_off", detail, ..problem });
            }
        } else {
            self.drop_pending();
        }
        if self.file.first_seq.is_none()
            && let Some(named) = self.named.filter(|named| *named != seq)
        {
            let detail = format!(
                "the file begins with record {seq}, and by its name with {named}: files were exchanged, or lines removed"
            );
            self.report.wrong(self.at(Some(seq), "wrong_name", detail));
        }
        self.file.first_seq.get_or_insert(seq);
        if !self.follow(link, told, seq) {
            return;
        }
        self.report.records += 1;
        self.report.first_seq.get_or_insert(seq);
        (self.report.last_seq, self.report.last_hash, self.file.last_seq) = (Some(seq), Some(link.hash), Some(seq));
        self.last = Some(Last { seq, hash: link.hash, changed: false });
        self.tell(finding, told, seq);
        if let Some(head) = self.checks.head.as_ref().filter(|head| head.seq == seq) {
            self.head_seen |= head.hash == link.hash;
            if head.hash != link.hash {
                self.head_differs = true;
                let detail = format!("it is another record than the one that was written: its hash was {}", head.hash);
                self.report.wrong(self.at(Some(seq), "not_the_head", detail));
            }
        }
    }

    /// Whether the chain goes on behind this line: not where it is there twice.
    fn follow(&mut self, link: Link, told: &Told, seq: u64) -> bool {
        let starts = link.previous.is_none() && told.finding().is_some_and(Reason::starts_anew);
        if starts {
            let detail = told.detail.clone().unwrap_or_default();
            let detail = format!("the chain starts anew, because of {}: {detail}", told.reason);
            self.report.wrong(self.at(Some(seq), "chain_starts_anew", detail));
        }
        let Some(last) = self.last else {
            self.anew = starts;
            self.first = Some((self.at(Some(seq), "start_missing", String::new()), link.previous));
            return true;
        };
        if starts || (link.previous == Some(last.hash) && seq > last.seq) {
            return true;
        }
        let (problem, detail) = if link.hash == last.hash {
            ("duplicate", "it is the line before once more".to_owned())
        } else if seq <= last.seq {
            ("out_of_order", format!("it stands behind record {}: lines or files were exchanged or repeated", last.seq))
        } else if last.changed {
            ("not_linked", "it does not follow the line before, which was changed".to_owned())
        } else if seq > last.seq + 1 {
            ("missing", format!("lines between record {} and this one are missing", last.seq))
        } else {
            ("not_linked", format!("its field prev is not the hash of record {}, which stands before it", last.seq))
        };
        self.report.wrong(self.at(Some(seq), problem, detail));
        problem != "duplicate"
    }

    /// What a record tells of the log, and that is nothing wrong by itself.
    fn tell(&mut self, finding: Option<Reason>, told: &Told, seq: u64) {
        let Some(finding) = finding else { return };
        if finding == Reason::Expired
            && let Some((first, previous)) = &self.first
        {
            self.expired |= first.seq == told.before_seq && previous.is_some() && *previous == told.last_hash;
        }
        if !finding.starts_anew() {
            let detail = told.detail.clone().unwrap_or_default();
            self.report.note(self.at(Some(seq), finding.name(), detail));
        }
    }

    /// All files were read.
    pub(super) fn end(mut self) -> Report {
        self.drop_pending();
        self.report.start = self.end_start();
        self.report.head = self.end_head();
        if let Some(rest) = self.rest.take() {
            if self.head_seen {
                let detail = format!("{}: they are newer than the record that was noted last", rest.detail);
                self.report.note(Problem { problem: "unfinished", detail, ..rest });
            } else {
                self.report.wrong(rest);
            }
        }
        self.report.intact = self.report.problems_total == 0;
        self.report
    }

    fn end_start(&mut self) -> &'static str {
        let Some((first, previous)) = self.first.take() else {
            // The first line was changed, which is told.
            return if self.report.records > 0 { "changed" } else { "empty" };
        };
        let after = self.checks.after;
        let detail = match (previous, after) {
            (_, After::Any) => return "not_checked",
            (Some(previous), After::Hash(hash)) if previous == hash => return "after",
            (_, After::Hash(hash)) => format!("it does not follow the line with the hash {hash}"),
            (None, After::Start) if first.seq == Some(1) || self.anew => return "new",
            (None, After::Start) => "it has no line before it, and is not the first record".to_owned(),
            (Some(_), After::Start) if self.expired => return "expired",
            (Some(previous), After::Start) => format!(
                "what was before it is missing, and no record says that it was removed: name the older files too, or say --after {previous} if they were verified before"
            ),
        };
        self.report.wrong(Problem { detail, ..first });
        "missing"
    }

    fn end_head(&mut self) -> &'static str {
        let Some(head) = &self.checks.head else { return "not_checked" };
        if self.head_seen {
            return "found";
        }
        let last = self.last.map_or_else(|| "nothing".to_owned(), |last| format!("record {}", last.seq));
        let file = self.report.files.last().map(|file| file.path.clone()).unwrap_or_default();
        let detail = format!("record {} was written last, and is missing: the log ends with {last}", head.seq);
        let missing = Problem { file, line: None, seq: Some(head.seq), problem: "tail_missing", detail };
        if !self.head_differs {
            self.report.wrong(missing);
        }
        "missing"
    }
}
