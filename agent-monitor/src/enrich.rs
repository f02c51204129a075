//! What `/proc` says about the process of an event. Best effort: an agent can make a read of its `/proc` entry take as
//! long as it likes, so all reading is done by a few threads behind a short queue, and who asks waits only so long.
//! It never decides anything.

mod process;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub use process::Details;
use process::{Failure, describe};

/// Threads that read.
const WORKERS: usize = 2;
/// Requests that may wait. When all threads hang and these are taken, records are written without details at once.
const QUEUE: usize = 16;
/// Longest wait for one process.
const PATIENCE: Duration = Duration::from_millis(250);

/// Asks the reading threads.
#[derive(Clone, Debug)]
pub struct Enricher {
    requests: SyncSender<Request>,
    failures: Arc<Failures>,
}

#[derive(Debug)]
struct Request {
    pid: u32,
    start_boot_ns: u64,
    reply: SyncSender<Result<Details, Failure>>,
}

/// How often a process could not be described, by why.
#[derive(Debug, Default)]
pub struct Failures {
    gone: AtomicU64,
    reused: AtomicU64,
    unreadable: AtomicU64,
    slow: AtomicU64,
}

impl Failures {
    /// Each reason with its count.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("gone", read(&self.gone)),
            ("reused", read(&self.reused)),
            ("unreadable", read(&self.unreadable)),
            ("slow", read(&self.slow)),
        ]
    }
}

impl Enricher {
    /// Starts the threads, which end when the last clone of the result is dropped. `proc` is where procfs is mounted.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(proc: PathBuf) -> std::io::Result<Self> {
        let (requests, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..WORKERS {
            let (proc, queue) = (proc.clone(), queue.clone());
            thread::Builder::new().name("enrich".to_owned()).spawn(move || work(&proc, &queue))?;
        }
        Ok(Self { requests, failures: Arc::default() })
    }

    /// Describes the process that had this id and started then; `None` where it is gone or takes too long to read.
    /// Blocks the thread, for a bounded time.
    pub fn describe(&self, pid: u32, start_boot_ns: u64) -> Option<Details> {
        let (reply, answer) = sync_channel(1);
        let failed = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
            None
        };
        if self.requests.try_send(Request { pid, start_boot_ns, reply }).is_err() {
            return failed(&self.failures.slow);
        }
        match answer.recv_timeout(PATIENCE) {
            Ok(Ok(details)) => Some(details),
            Ok(Err(Failure::Gone)) => failed(&self.failures.gone),
            Ok(Err(Failure::Reused)) => failed(&self.failures.reused),
            Ok(Err(Failure::Unreadable)) => failed(&self.failures.unreadable),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => failed(&self.failures.slow),
        }
    }

    /// How often it failed.
    pub fn failures(&self) -> &Arc<Failures> {
        &self.failures
    }
}

fn work(proc: &std::path::Path, queue: &Mutex<Receiver<Request>>) {
    loop {
        let request = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(request) = request else { return };
        // Who asked may have stopped waiting.
        let _ = request.reply.send(describe(proc, request.pid, request.start_boot_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hanging_readers_cost_a_bounded_time_and_then_none() {
        // Nobody works on this queue: as if every thread hung.
        let (requests, _queue) = sync_channel(2);
        let enricher = Enricher { requests, failures: Arc::default() };
        for _ in 0..1000 {
            assert_eq!(enricher.describe(1, 1), None);
        }
        assert_eq!(enricher.failures().counts().last(), Some(&("slow", 1000)));
    }
}
