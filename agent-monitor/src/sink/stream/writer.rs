//! The thread of the stream: it numbers records, writes them into the audit log and hands them out, and makes a record of
//! what the log could not take.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{broadcast, mpsc, watch};

use super::{Entry, Message, Position, Tap, Totals};
use crate::record::{Body, Loss, Record, Tally, clock};
use crate::sink::audit::AuditLog;
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
    /// Records that are not in the audit log: first number, last number, how many.
    pub(super) missing: Option<(u64, u64, u64)>,
}

impl Writer {
    /// Works until the last way in is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            match message {
                Message::Entries(entries) => {
                    self.write(entries);
                    self.progressed.send_modify(|count| *count += 1);
                }
                Message::Between(done) => {
                    let (inode, bytes) = self.log.as_ref().and_then(|log| log.position().ok()).unwrap_or_default();
                    done(Position { seq: self.seq, inode, bytes });
                }
                Message::Flush(reply) => {
                    let _ = reply.send(());
                }
                Message::Reopen(reply) => {
                    let _ = reply.send(self.log.as_mut().map_or(Ok(()), AuditLog::reopen));
                }
            }
        }
        self.write(Vec::new());
    }

    fn write(&mut self, mut entries: Vec<Entry>) {
        let retry = self.missing.is_some();
        let only_retry = entries.is_empty();
        if let Some((first, last, count)) = self.missing {
            entries.insert(0, self.loss(first, last, count).into());
        }
        if entries.is_empty() {
            return;
        }
        let before = self.seq;
        let mut lines = Vec::with_capacity(entries.len());
        for entry in &mut entries {
            self.seq += 1;
            entry.record.seq = Some(self.seq);
            lines.push(entry.record.to_line());
        }
        let written = self.log(&lines);
        self.note(before, written, lines.len(), retry);
        if only_retry && written == 0 {
            // Nothing was told: the number is free for the next record.
            self.seq = before;
            return;
        }
        self.totals.last_seq.store(self.seq, Ordering::Relaxed);
        for (index, (Entry { record, tally }, line)) in entries.iter().zip(lines).enumerate() {
            if let Some(tally) = tally {
                count(tally, record, index < written);
            }
            if let Some(tap) = &mut self.tap {
                tap(record);
            }
            // An error says only that nobody follows.
            let _ = self.published.send(Arc::new(Published::new(record, line)));
        }
    }

    /// Writes lines into the audit log, and gives how many of them are in it.
    fn log(&mut self, lines: &[String]) -> usize {
        let Some(log) = &mut self.log else { return lines.len() };
        match log.add(lines.concat().as_bytes()) {
            Ok(()) => {
                self.totals.audit_written.fetch_add(lines.len() as u64, Ordering::Relaxed);
                self.totals.failing.store(false, Ordering::Relaxed);
                lines.len()
            }
            Err((bytes, error)) => {
                if !self.totals.failing.swap(true, Ordering::Relaxed) {
                    let what = "cannot write the audit log; records are lost and counted until it can be written again";
                    tracing::error!(%error, "{what}");
                }
                let ends = lines.iter().scan(0, |end, line| {
                    *end += line.len();
                    Some(*end)
                });
                let written = ends.take_while(|end| *end <= bytes).count();
                self.totals.audit_written.fetch_add(written as u64, Ordering::Relaxed);
                written
            }
        }
    }

    /// Takes note of what is missing in the audit log after a batch that began after `before`, of whose `all` records the
    /// first `written` are in the log. With `retry` the first of them tells of what was missing until now.
    fn note(&mut self, before: u64, written: usize, all: usize, retry: bool) {
        if written > 0 {
            self.missing = None;
        }
        if written == all {
            return;
        }
        // A loss record that could not be written is not lost: what it tells of is told by the next one.
        let told_again = u64::from(retry && written == 0);
        let lost = (all - written) as u64 - told_again;
        let (first, count) = self.missing.map_or((before + written as u64 + 1, 0), |(first, _, count)| (first, count));
        let last = if lost == 0 { before.max(first) } else { self.seq };
        self.missing = Some((first, last, count + lost));
        self.totals.audit_lost.fetch_add(lost, Ordering::Relaxed);
    }

    fn loss(&self, first: u64, last: u64, count: u64) -> Record {
        let loss = Loss {
            stage: "audit".to_owned(),
            reason: "write_failed".to_owned(),
            count,
            agent: None,
            after_seq: Some(first.saturating_sub(1)),
            before_seq: Some(last + 1),
        };
        Record { time: clock::now(), seq: None, node_name: self.node_name.clone(), body: Body::Loss(loss) }
    }
}

/// Counts a record for its agent.
fn count(tally: &Tally, record: &Record, written: bool) {
    if let Body::Operation(operation) = &record.body {
        match operation.verdict.as_str() {
            "deny" => tally.add_denied(written),
            "audit" => tally.add_audited(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Stream};
    use super::*;
    use crate::record::MonitorChange;
    use std::sync::Mutex;

    fn record(text: &str) -> Record {
        let change = MonitorChange {
            action: text.to_owned(),
            version: String::new(),
            enforcement: String::new(),
            messages: Vec::new(),
        };
        Record { time: clock::now(), seq: None, node_name: "n".into(), body: Body::Monitor(change) }
    }

    fn seen() -> (Tap, Arc<Mutex<Vec<Record>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        (Box::new(move |record: &Record| into.lock().expect("test lock").push(record.clone())), seen)
    }

    /// A writer whose last record has this number.
    fn writer(log: Option<AuditLog>, seq: u64) -> Writer {
        let (published, progressed) = (broadcast::channel(8).0, watch::channel(0).0);
        let (node_name, totals) = ("n".into(), Arc::default());
        Writer { log, tap: None, node_name, published, totals, progressed, seq, missing: None }
    }

    #[tokio::test]
    async fn records_are_numbered_without_gaps_in_the_order_of_writing() {
        let (tap, seen) = seen();
        let (stream, thread) = Stream::start(Options { tap: Some(tap), ..Options::default() }).expect("stream starts");
        let mut follower = stream.subscribe();
        stream.write(vec![record("a"), record("b")]).await;
        stream.write(vec![record("c")]).await;
        stream.flush().await;
        let numbers: Vec<_> = seen.lock().expect("test lock").iter().map(|record| record.seq).collect();
        assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
        assert!(follower.recv().await.expect("followed").line().contains("\"seq\":1,"));
        drop(stream);
        thread.join().expect("thread ends");
    }

    #[test]
    fn what_the_log_could_not_take_is_named_by_the_next_record() {
        let (tap, seen) = seen();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-full", std::process::id()));
        let (good, _) = AuditLog::open(&path).expect("log can be made");
        let mut writer = Writer { tap: Some(tap), ..writer(Some(AuditLog::of(full)), 10) };
        writer.write(vec![record("a").into(), record("b").into()]);
        writer.write(vec![record("c").into()]);
        writer.write(Vec::new());
        assert!(writer.totals.failing.load(Ordering::Relaxed));
        writer.log = Some(good);
        writer.write(vec![record("d").into()]);
        assert!(!writer.totals.failing.load(Ordering::Relaxed));
        let totals = (&writer.totals.audit_written, &writer.totals.audit_lost);
        assert_eq!((totals.0.load(Ordering::Relaxed), totals.1.load(Ordering::Relaxed)), (2, 3));
        let text = std::fs::read_to_string(&path).expect("log is text");
        let records: Vec<_> = text.lines().map(|line| Record::parse(line).expect("line is a record")).collect();
        let Some(Body::Loss(loss)) = records.first().map(|record| &record.body) else { panic!("{text}") };
        assert_eq!((loss.count, loss.after_seq, loss.before_seq), (3, Some(10), Some(15)));
        assert_eq!(records.first().and_then(|record| record.seq), Some(15));
        // Three lost, a loss record that a follower saw and the log did not, and the two that are in the log.
        assert_eq!(seen.lock().expect("test lock").len(), 6);
        let _ = std::fs::remove_file(path);
    }

    #[test]
    fn of_a_batch_that_fits_in_part_the_rest_is_named() {
        let mut writer = writer(None, 15);
        writer.note(10, 2, 5, false);
        assert_eq!(writer.missing, Some((13, 15, 3)));
        // The loss record alone is tried again, in vain.
        writer.seq = 16;
        writer.note(15, 0, 1, true);
        assert_eq!(writer.missing, Some((13, 15, 3)));
        // It fits, and of two that come with it one does not.
        writer.seq = 18;
        writer.note(15, 2, 3, true);
        assert_eq!(writer.missing, Some((18, 18, 1)));
        writer.seq = 19;
        writer.note(18, 1, 1, true);
        assert_eq!(writer.missing, None);
    }
}
