//! What outlives the process and the machine: the head, and when the log is synced to its disk.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::{AuditLog, trouble};
use crate::config::Fsync;

impl AuditLog {
    /// Notes the last record.
    pub(super) fn note_head(&mut self) {
        let (Some(head), Some(hash), Ok(metadata)) = (&mut self.head, self.hash, self.file.metadata()) else { return };
        let noted = head.put(self.seq, hash, metadata.ino(), self.whole);
        self.troubles.noting = trouble("note the last record of the audit log", self.troubles.noting.take(), noted);
    }

    /// Syncs the file when it is time to.
    pub fn sync_if_due(&mut self) {
        let every = Duration::from_secs(self.keeping.fsync_seconds);
        let due = self.keeping.fsync == Fsync::Interval && self.synced.elapsed() >= every;
        if due && (self.unsynced || self.troubles.syncing.is_some()) {
            self.sync();
            if let Some(head) = &self.head {
                let synced = head.sync();
                self.troubles.noting = trouble("sync the head of the audit log", self.troubles.noting.take(), synced);
            }
        }
    }

    /// Syncs the file, unless that is never to be.
    pub(super) fn sync(&mut self) {
        if self.keeping.fsync == Fsync::Never {
            return;
        }
        let synced = self.file.sync_data();
        self.unsynced = synced.is_err();
        self.synced = Instant::now();
        self.troubles.syncing = trouble("sync the audit log", self.troubles.syncing.take(), synced);
    }

    /// Has all on the disk that is written, unless that is never to be.
    pub fn close(&mut self) {
        if self.unsynced {
            self.sync();
        }
        if let Some(head) = self.head.as_ref().filter(|_| self.keeping.fsync != Fsync::Never) {
            // Nobody is left who could be told but the log.
            if let Err(error) = head.sync() {
                tracing::error!(%error, "cannot sync the head of the audit log");
            }
        }
    }
}
