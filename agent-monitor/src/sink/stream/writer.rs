//! The thread of the stream: it numbers records, writes them into the audit log and hands them out, and makes a record of
//! what the log could not take and of what was found in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_monitor_common::class::Class;
use tokio::sync::{broadcast, mpsc, watch};

use super::{Entry, Message, Position, Tap, Totals};
use crate::record::{Body, Loss, Record, Tally, clock};
use crate::sink::audit::{AuditLog, Finding, Reason};
use crate::sink::follow::Published;

/// The thread's own state.
pub(super) struct Writer {
    pub(super) log: Option<AuditLog>,
    pub(super) tap: Option<Tap>,
    pub(super) node_name: Arc<str>,
    pub(super) published: broadcast::Sender<Arc<Published>>,
    pub(super) totals: Arc<Totals>,
    pub(super) progressed: watch::Sender<u64>,
    /// Number of the last record.
    pub(super) seq: u64,
    /// What was found in the audit log and is not told in it yet.
    pub(super) untold: Vec<Finding>,
    /// Records that are not in the audit log: first number, last number, how many.
    pub(super) missing: Option<(u64, u64, u64)>,
}

impl Writer {
    /// Works until the last way in is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut wrote = false;
        while let Some(message) = queue.blocking_recv() {
            wrote |= message.writes();
            match message {
                Message::Entries(entries) => {
                    self.write(entries);
                    self.progressed.send_modify(|count| *count += 1);
                }
                Message::Between(done) => {
                    let (inode, bytes) = self.log.as_ref().and_then(|log| log.position().ok()).unwrap_or_default();
                    done(Position { seq: self.seq, inode, bytes });
                    self.progressed.send_modify(|count| *count += 1);
                }
                Message::Flush(reply) => {
                    let _ = reply.send(());
                    self.progressed.send_modify(|count| *count += 1);
                }
                Message::Reopen(reply) => {
                    let result = self.log.as_mut().map_or(Ok(()), AuditLog::reopen);
                    let why = result.as_ref().err().map(ToString::to_string);
                    self.totals.set_failing(|failing| failing.reopening = why);
                    let _ = reply.send(result);
                    self.write(Vec::new());
                }
                Message::Tick => {
                    self.write(Vec::new());
                    if let Some(log) = &mut self.log {
                        log.sync_if_due();
                    }
                    self.note_troubles();
                }
            }
            self.totals.done.fetch_add(1, Ordering::Relaxed);
        }
        // A daemon that could not start leaves the log as it found it: what is wrong with it the next one finds again.
        if wrote {
            self.write(Vec::new());
        }
        if let Some(log) = &mut self.log {
            log.close();
        }
    }

    fn write(&mut self, entries: Vec<Entry>) {
        self.look();
        let only_told_again = entries.is_empty();
        let told = self.untold.iter().map(|finding| finding.record(&self.node_name));
        let lost = self.missing.map(|(first, last, count)| self.loss(first, last, count));
        let mut all: Vec<Entry> = told.chain(lost).map(Entry::from).collect();
        let lead = all.len();
        all.extend(entries);
        if all.is_empty() {
            return;
        }
        let before = self.seq;
        let mut lines = Vec::with_capacity(all.len());
        for entry in &mut all {
            self.seq += 1;
            entry.record.seq = Some(self.seq);
            lines.push((self.seq, entry.record.to_line()));
        }
        let sealed = self.log(&lines);
        let written = sealed.as_ref().map_or(lines.len(), Vec::len);
        self.note(before, written, lines.len(), lead);
        if only_told_again && written == 0 {
            // Nothing was told: the number is free for the next record.
            self.seq = before;
            return;
        }
        self.totals.last_seq.store(self.seq, Ordering::Relaxed);
        let mut sealed = sealed.unwrap_or_default().into_iter();
        for (index, (Entry { record, tally }, (_, line))) in all.iter().zip(lines).enumerate() {
            if let Some(tally) = tally {
                count(tally, record, index < written);
            }
            if let Body::Operation(operation) = &record.body
                && index < written
            {
                self.totals.folded.fetch_add(operation.count.saturating_sub(1), Ordering::Relaxed);
            }
            if let Some(tap) = &mut self.tap {
                tap(record);
            }
            // Followers get what stands in the log; what does not has no hash. An error says only that nobody follows.
            let line = sealed.next().unwrap_or(line);
            let _ = self.published.send(Arc::new(Published::new(record, line)));
        }
    }

    /// Has the log say what was found in it.
    fn look(&mut self) {
        let Some(log) = &mut self.log else { return };
        log.prepare();
        for finding in log.take_findings() {
            self.totals.found.add(finding.reason);
            if finding.reason != Reason::Expired {
                tracing::error!("audit log: {}: {}", finding.reason.name(), finding.detail);
            }
            self.untold.push(finding);
        }
        self.untold.sort_by_key(|finding| finding.reason.rank());
    }

    fn note_troubles(&self) {
        if let Some(log) = &self.log {
            self.totals.set_failing(|failing| failing.log = log.troubles().clone());
        }
    }

    /// Writes lines with their numbers into the audit log, and gives those that are in it, as they are; none where there is
    /// no log.
    fn log(&mut self, lines: &[(u64, String)]) -> Option<Vec<String>> {
        let (sealed, result) = self.log.as_mut()?.add(lines);
        self.totals.audit_written.fetch_add(sealed.len() as u64, Ordering::Relaxed);
        let why = result.err().map(|error| error.to_string());
        if let Some(error) = why.as_ref().filter(|_| self.totals.failing().writing.is_none()) {
            let what = "cannot write the audit log; records are lost and counted until it can be written again";
            tracing::error!(error, "{what}");
        }
        self.totals.set_failing(|failing| failing.writing = why);
        self.note_troubles();
        Some(sealed)
    }

    /// Takes note of what is missing in the audit log after a batch that began after `before`, of whose `all` records the
    /// first `written` are in the log. The first `lead` of them tell of findings, and then of what was missing until now.
    fn note(&mut self, before: u64, written: usize, all: usize, lead: usize) {
        let retry = self.missing.is_some();
        self.untold.drain(..written.min(self.untold.len()));
        if written >= lead {
            self.missing = None;
        }
        // What could not be told is not lost: it is told again.
        let lost = (all - written.max(lead)) as u64;
        if written == all || (lost == 0 && !retry) {
            return;
        }
        let (first, count) = self.missing.map_or((before + written as u64 + 1, 0), |(first, _, count)| (first, count));
        // Where nothing at all was written and nothing is lost the numbers are given again.
        let last = if lost == 0 && written == 0 { before.max(first) } else { self.seq };
        self.missing = Some((first, last, count + lost));
        self.totals.audit_lost.fetch_add(lost, Ordering::Relaxed);
    }

    fn loss(&self, first: u64, last: u64, count: u64) -> Record {
        let loss = Loss {
            stage: "audit".to_owned(),
            reason: "write_failed".to_owned(),
            count,
            after_seq: Some(first.saturating_sub(1)),
            before_seq: Some(last + 1),
            ..Loss::default()
        };
        Record { time: clock::now(), seq: None, node_name: self.node_name.clone(), body: Body::Loss(loss) }
    }
}

/// Counts a record for its agent.
fn count(tally: &Tally, record: &Record, written: bool) {
    match &record.body {
        Body::Operation(operation) => match (operation.verdict.as_str(), Class::from_name(&operation.class)) {
            ("deny", Some(class)) => tally.add_denied(class, operation.count, written),
            ("audit", _) => tally.add_audited(),
            _ => {}
        },
        Body::Agent(change) if change.counts.is_none() => tally.begin(),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
