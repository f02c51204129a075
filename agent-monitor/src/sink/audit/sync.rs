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
        let noted = if self.keeping.fsync == Fsync::Always { noted.and_then(|()| head.sync()) } else { noted };
        self.troubles.noting = trouble("note the last record of the audit log", self.troubles.noting.take(), noted);
    }

    /// Syncs the file when it is time to.
    pub fn sync_if_due(&mut self) {
        let every = Duration::from_secs(self.keeping.fsync_seconds);
        let due = self.keeping.fsync == Fsync::Interval && self.synced.elapsed() >= every;
        if due && self.unsynced {
            self.sync();
            if let Some(head) = &mut self.head {
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
        let before = self.troubles.syncing.take();
        // What the kernel could not write it may have thrown away, and the next time says that all is well: so this stays
        // until another file goes on, or the log is opened again. With `always` nothing of it is in the log any more.
        let stays = self.keeping.fsync == Fsync::Interval && synced.is_ok();
        self.troubles.syncing = if stays { before } else { trouble("sync the audit log", before, synced) };
    }

    /// Has all on the disk that is written, unless that is never to be.
    pub fn close(&mut self) {
        if self.unsynced {
            self.sync();
        }
        if let Some(head) = self.head.as_mut().filter(|_| self.keeping.fsync != Fsync::Never) {
            // Nobody is left who could be told but the log.
            if let Err(error) = head.sync() {
                tracing::error!(%error, "cannot sync the head of the audit log");
            }
        }
    }
}
