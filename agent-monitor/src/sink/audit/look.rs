//! Finding what somebody else did to the file since the last line was written, and mending its end.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::finding::{Finding, Reason};
use super::lines::last_line;
use super::{AuditLog, Torn, end_of, trouble};

impl AuditLog {
    /// Looks whether the file is as it was left.
    pub(super) fn look(&mut self) {
        let Ok(metadata) = self.file.metadata() else { return };
        if metadata.nlink() == 0 && metadata.is_file() {
            let detail = "the file was removed; the log goes on in a new one".to_owned();
            let finding = self.found(Reason::Deleted, self.first.map(|(first, _)| first.saturating_sub(1)), detail);
            match self.reopen() {
                Ok(()) => self.findings.push(finding),
                Err(error) => {
                    let before = self.troubles.rotating.take();
                    self.troubles.rotating = trouble("make the audit log again, which was removed", before, Err(error));
                }
            }
            return;
        }
        let (is, was) = (metadata.len(), self.length);
        if is < was {
            let detail = format!(
                "the file was cut from {was} to {is} bytes while it was written; copytruncate loses records: have it renamed, then SIGHUP sent"
            );
            let after = if is == 0 { self.first.map(|(first, _)| first.saturating_sub(1)) } else { None };
            let finding = self.found(Reason::Truncated, after, detail);
            tracing::error!("{}: {}", self.place.path.display(), finding.detail);
            self.findings.push(finding);
            self.troubles.truncated = true;
            if is == 0 {
                self.first = None;
            }
        } else if is > was && metadata.is_file() {
            let detail = format!("{} bytes in the file were written by somebody else", is - was);
            let finding = self.found(Reason::Appended, Some(self.seq), detail);
            tracing::error!("{}: {}", self.place.path.display(), finding.detail);
            self.findings.push(finding);
        } else {
            return;
        }
        (self.length, self.whole) = (is, is);
        let rest = last_line(&self.file, is).map(|(_, rest)| rest).unwrap_or_default();
        self.torn = (!rest.is_empty()).then_some(Torn { end: end_of(&rest), found: true });
    }

    fn found(&self, reason: Reason, after_seq: Option<u64>, detail: String) -> Finding {
        let (file, before_seq) = (self.place.shown(), Some(self.seq + 1));
        Finding { reason, file, after_seq, before_seq, last_hash: self.hash, detail }
    }

    /// Takes a torn line back, or ends it.
    pub(super) fn mend(&mut self) {
        let Some(torn) = self.torn else { return };
        if !torn.found && self.file.set_len(self.whole).is_ok() {
            (self.length, self.torn) = (self.whole, None);
            return;
        }
        let ended = self.file.write_all(torn.end);
        let Ok(metadata) = self.file.metadata() else { return };
        self.length = metadata.len();
        if ended.is_err() {
            return;
        }
        if !torn.found {
            let detail = format!("{} bytes of a record stand before this one", self.length.saturating_sub(self.whole));
            let finding = Finding { last_hash: None, ..self.found(Reason::LineCutOff, Some(self.seq), detail) };
            self.findings.push(finding);
        }
        (self.whole, self.torn) = (self.length, None);
    }
}
