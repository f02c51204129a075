//! Rotating an audit log: the file gets a name with the number of its first record, a new one goes on with the chain, and
//! the oldest ones are removed where the settings ask for it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Reason};
use super::lines::{Brief, first_line};
use super::{AuditLog, rotated, trouble};
use crate::config::Fsync;
use crate::record::chain::read;

impl AuditLog {
    /// Whether the file is large or old enough.
    pub(super) fn is_due(&self) -> bool {
        let Some((_, since)) = self.first else { return false };
        // A clock that was set back makes the file no older.
        let age = SystemTime::now().duration_since(since).unwrap_or_default();
        let (most, oldest) = (self.keeping.max_bytes, self.keeping.max_age_seconds);
        (most > 0 && self.whole >= most) || (oldest > 0 && age >= Duration::from_secs(oldest))
    }

    /// Rotates the file; where it can't be, it stays in use.
    pub(super) fn rotate(&mut self) {
        let Some((first, _)) = self.first else { return };
        self.sync();
        let synced = !self.unsynced;
        let rotated = self.replace(&rotated::name(self.place.name(), first), Self::same_readers);
        let well = rotated.is_ok();
        self.troubles.rotating = trouble("rotate the audit log", self.troubles.rotating.take(), rotated);
        if well {
            if synced {
                self.troubles.syncing = None;
            }
            self.expire();
        }
    }

    /// Gives the file another name and goes on in a new one, once that is `ready`; where that can't be, all is as before.
    pub(super) fn replace(
        &mut self,
        name: &OsStr,
        ready: impl FnOnce(&Self, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.place.rename(self.place.name(), name)?;
        let made = self.place.open().and_then(|file| {
            let result = ready(self, &file);
            if result.is_err() {
                // It is in the way of the old one's name; where it must stay, that name tells.
                let _ = self.place.unmake(&file);
            }
            result.map(|()| file)
        });
        match made {
            Ok(file) => self.file = file,
            Err(error) => {
                return Err(match self.place.rename(name, self.place.name()) {
                    Ok(()) => error,
                    Err(back) => io::Error::other(format!("{error}; and the file can't have its name back: {back}")),
                });
            }
        }
        (self.whole, self.length, self.first, self.unsynced) = (0, 0, None, false);
        if self.keeping.fsync != Fsync::Never { self.place.sync() } else { Ok(()) }
    }

    /// Who was let read the old file may read the new one.
    pub(super) fn same_readers(&self, file: &File) -> io::Result<()> {
        let old = self.file.metadata()?;
        fchown(file, None, Some(old.gid()))?;
        file.set_permissions(PermissionsExt::from_mode(old.mode() & 0o644))
    }

    /// Finds the files that are more than are to be kept.
    pub(super) fn expire(&mut self) {
        let keep = self.keeping.keep as usize;
        if keep == 0 {
            return;
        }
        let found = match rotated::list(&self.place.path) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "cannot look for old files of the audit log; none is removed");
                return;
            }
        };
        let (expired, kept) = found.split_at(found.len().saturating_sub(keep));
        let (Some((first, _)), Some((_, next))) = (expired.first(), kept.first()) else { return };
        let start = File::open(next).and_then(|file| first_line(&file)).ok().flatten();
        let link = start.as_deref().and_then(|line| read(line).ok());
        let finding = Finding {
            reason: Reason::Expired,
            file: names(expired).iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(" "),
            after_seq: Some(first.saturating_sub(1)),
            before_seq: start.as_deref().and_then(Brief::seq),
            last_hash: link.and_then(|link| link.previous),
            detail: format!("{} files were removed: audit.keep is {keep}", expired.len()),
        };
        if finding.last_hash.is_none() {
            // Without it `verify` could not tell this from somebody else's removal.
            let next = next.display();
            tracing::error!("the first line of {next} is no link of a chain; no old file of the audit log is removed");
            return;
        }
        self.findings.push(finding);
        self.expired = names(expired);
    }

    /// Removes them, after that was told or could not be: on a full disk they are what is in the way.
    pub(super) fn remove_expired(&mut self) {
        for name in std::mem::take(&mut self.expired) {
            if let Err(error) = self.place.remove(&name) {
                tracing::error!(%error, "cannot remove {} of the audit log", name.display());
            }
        }
    }
}

fn names(files: &[(u64, PathBuf)]) -> Vec<OsString> {
    files.iter().filter_map(|(_, path)| path.file_name().map(OsString::from)).collect()
}
