//! The stream of records: the way into it, and what it has done. The thread that numbers and writes them is `writer`.

mod outbox;
mod pulse;
mod writer;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::audit::{AuditLog, Found, LogOptions, Troubles};
use super::follow::Published;
use crate::record::{Record, Tally};
pub use outbox::Outbox;
pub use pulse::Pulse;
use writer::Writer;

/// Batches that may wait for the thread; who writes waits when there are more.
const QUEUE: usize = 64;
/// Records that a follower may be behind before it loses some.
const FOLLOWER_RECORDS: usize = 8192;

/// Sees every record in the order of writing, from inside the writing thread.
pub type Tap = Box<dyn FnMut(&Record) + Send>;

/// Where the stream goes beside its followers.
#[derive(Default)]
pub struct Options {
    /// The audit log.
    pub log: Option<LogOptions>,
    /// Sees every record.
    pub tap: Option<Tap>,
    /// Name of the node, for the loss records that the stream itself makes.
    pub node_name: Arc<str>,
}

/// What the stream has done.
#[derive(Debug, Default)]
pub struct Totals {
    /// Records that are in the audit log.
    pub audit_written: AtomicU64,
    /// Events that became part of another's record.
    pub folded: AtomicU64,
    /// Records that the audit log could not take.
    pub audit_lost: AtomicU64,
    /// Records given to followers, summed over the followers.
    pub follower_written: AtomicU64,
    /// Records that followers were too slow for.
    pub follower_lost: AtomicU64,
    /// What was found in the audit log, or was done to it.
    pub found: Found,
    /// Number of the last record.
    pub last_seq: AtomicU64,
    /// Messages that the thread has done.
    pub done: AtomicU64,
    /// What does not work now.
    pub failing: Mutex<Failing>,
}

/// What of the audit log does not work now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// Why it can't be written.
    pub writing: Option<String>,
    /// Why it can't be opened again.
    pub reopening: Option<String>,
    /// All else.
    pub log: Troubles,
}

impl Failing {
    /// Each thing that is done to the log, and whether it fails now. `keeping` fails where the file was cut.
    pub fn actions(&self) -> [(&'static str, bool); 6] {
        let Troubles { rotating, syncing, noting, truncated } = &self.log;
        [
            ("writing", self.writing.is_some()),
            ("reopening", self.reopening.is_some()),
            ("rotating", rotating.is_some()),
            ("syncing", syncing.is_some()),
            ("noting", noting.is_some()),
            ("keeping", *truncated),
        ]
    }

    /// The same in words, for the log at this path.
    pub fn reasons(&self, log: &Path) -> Vec<String> {
        let log = log.display();
        let because = |what: &str, why: &Option<String>| {
            why.as_ref().map(|why| format!("the audit log {log} can't be {what}: {why}"))
        };
        let noting = self.log.noting.as_ref();
        let truncated = self.log.truncated.then(|| {
            format!("the audit log {log} was cut while it was written: have it renamed, not copied; then send SIGHUP")
        });
        let reasons = [
            because("written", &self.writing),
            because("opened again", &self.reopening),
            because("rotated", &self.log.rotating),
            because("synced", &self.log.syncing),
            noting.map(|why| format!("the last record of the audit log {log} can't be noted: {why}")),
            truncated,
        ];
        reasons.into_iter().flatten().collect()
    }
}

impl Totals {
    /// What does not work now.
    pub fn failing(&self) -> Failing {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failing(&self, change: impl FnOnce(&mut Failing)) {
        change(&mut self.failing.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A record, and where it is counted once it is written or lost.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Counts the operations of its agent.
    pub tally: Option<Arc<Tally>>,
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        Self { record, tally: None }
    }
}

/// How far the audit log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the last record.
    pub seq: u64,
    /// Inode of the file.
    pub inode: u64,
    /// Bytes in it.
    pub bytes: u64,
}

/// Something to be done between two batches.
pub type Between = Box<dyn FnOnce(Position) + Send>;

/// What the thread is told.
enum Message {
    Between(Between),
    Entries(Vec<Entry>),
    Flush(oneshot::Sender<()>),
    Reopen(oneshot::Sender<io::Result<()>>),
    Tick,
}

impl Message {
    /// Whether the audit log may be written because of it.
    fn writes(&self) -> bool {
        match self {
            Self::Entries(_) | Self::Reopen(_) | Self::Tick => true,
            Self::Between(_) | Self::Flush(_) => false,
        }
    }
}

/// The way into the stream. The thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Stream {
    messages: mpsc::Sender<Message>,
    published: broadcast::Sender<Arc<Published>>,
    totals: Arc<Totals>,
    progress: watch::Receiver<u64>,
}

impl Stream {
    /// Opens the audit log and starts the thread.
    ///
    /// # Errors
    /// The audit log can't be opened, or no thread can be started.
    pub fn start(options: Options) -> io::Result<(Self, JoinHandle<()>)> {
        let log = options.log.as_ref().map(AuditLog::open).transpose()?;
        let last = log.as_ref().map_or(0, AuditLog::seq);
        let (messages, queue) = mpsc::channel(QUEUE);
        let (published, _) = broadcast::channel(FOLLOWER_RECORDS);
        let (progressed, progress) = watch::channel(0);
        let totals = Arc::new(Totals::default());
        totals.last_seq.store(last, Ordering::Relaxed);
        let writer = Writer {
            log,
            tap: options.tap,
            node_name: options.node_name,
            published: published.clone(),
            totals: totals.clone(),
            progressed,
            seq: last,
            untold: Vec::new(),
            missing: None,
        };
        let thread = thread::Builder::new().name("records".to_owned()).spawn(move || writer.run(queue))?;
        Ok((Self { messages, published, totals, progress }, thread))
    }

    /// Hands over records, in order; each is counted once it is written or lost. Waits while the queue is full.
    #[cfg(test)]
    pub async fn write(&self, entries: Vec<Entry>) {
        let _ = self.messages.send(Message::Entries(entries)).await;
    }

    /// A way in for who must not wait, in the runtime that this is called in.
    pub fn outbox(&self) -> Outbox {
        Outbox::start(self.messages.clone())
    }

    /// Hands over records, in order; each is counted once it is written or lost. Blocks the thread while the queue is full:
    /// the kernel's ring, which counts its losses, is the only place where events may be lost for want of time.
    pub fn write_blocking(&self, entries: Vec<Entry>) {
        // Sending fails only when the thread is gone, at the end of the process.
        let _ = self.messages.blocking_send(Message::Entries(entries));
    }

    /// Answers when everything handed over before is written. Blocks the thread while the queue is full.
    pub fn mark_blocking(&self, reply: oneshot::Sender<()>) {
        let _ = self.messages.blocking_send(Message::Flush(reply));
    }

    /// Waits until everything handed over before is written.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        if self.messages.send(Message::Flush(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Opens the audit log again, after it was moved away.
    ///
    /// # Errors
    /// The new file can't be opened; the old one stays in use.
    pub async fn reopen(&self) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        if self.messages.send(Message::Reopen(reply)).await.is_err() {
            return Ok(());
        }
        done.await.unwrap_or(Ok(()))
    }

    /// Looks whether the thread goes on.
    pub fn look(&self, pulse: &mut Pulse) {
        let waits = self.messages.capacity() < self.messages.max_capacity();
        pulse.look(self.totals.done.load(Ordering::Relaxed), waits, Instant::now());
    }

    /// Every record from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Changes each time that records have been written or lost, or something was done between, or a mark was passed.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.clone()
    }

    /// What it has done.
    pub fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }
}
