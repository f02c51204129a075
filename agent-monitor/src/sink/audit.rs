//! The audit log: a file of lines that is only added to, each bound to the one before it. Once it is large or old enough it
//! is rotated. What somebody else does to it is found before the next line is written.

mod finding;
mod head;
mod lines;
mod look;
mod place;
mod resume;
mod rotate;
mod rotated;
mod sync;
pub mod verify;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

pub use finding::{Finding, Found, Reason};
pub use rotated::{list as rotated, open as open_files};

use crate::config::{Audit, Config, Fsync};
use crate::lock;
use crate::record::LineHash;
use crate::record::chain::{read, seal};
use head::HeadFile;
use lines::Brief;
use place::Place;
use resume::{Noted, resume};

/// Where an audit log is and how it is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The file.
    pub path: PathBuf,
    /// Where its last record is noted, if it is.
    pub head: Option<PathBuf>,
    /// How it is kept.
    pub keeping: Audit,
}

impl LogOptions {
    /// The audit log of the configuration.
    pub fn of(config: &Config) -> Self {
        Self { path: config.audit_log.clone(), head: Some(config.audit_head()), keeping: config.audit.clone() }
    }

    /// A file of records beside it: it is not rotated, and nothing is noted of it elsewhere.
    pub fn beside(path: PathBuf, config: &Config) -> Self {
        let keeping = Audit { fsync: config.audit.fsync, ..Audit::default() };
        Self { path, head: None, keeping }
    }
}

/// What of the log does not work now, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Rotating it.
    pub rotating: Option<String>,
    /// Syncing it.
    pub syncing: Option<String>,
    /// Noting its last record.
    pub noting: Option<String>,
    /// It was made shorter while it was written.
    pub truncated: bool,
}

/// A line that was begun and could neither be finished nor taken back.
#[derive(Clone, Copy, Debug)]
struct Torn {
    /// What ends it, so that it can't be taken for a whole one.
    end: &'static [u8],
    /// It was so when the log was opened: it is kept, and has been told.
    found: bool,
}

/// An open audit log.
#[derive(Debug)]
pub struct AuditLog {
    place: Place,
    keeping: Audit,
    file: File,
    /// The file is open for reading alone, because its file system was read-only.
    read_only: bool,
    /// Bytes of whole lines.
    whole: u64,
    /// Bytes of the file, with a torn line behind these.
    length: u64,
    torn: Option<Torn>,
    /// Number and line of the last record.
    seq: u64,
    hash: Option<LineHash>,
    /// Number and time of the file's first record.
    first: Option<(u64, SystemTime)>,
    head: Option<HeadFile>,
    findings: Vec<Finding>,
    /// Files to be removed once that was told.
    expired: Vec<OsString>,
    unsynced: bool,
    synced: Instant,
    troubles: Troubles,
}

impl AuditLog {
    /// Opens the log for adding, and makes it (mode 0600) and its directory (mode 0700) where they are missing. What is
    /// wrong with its end is found, see [`Self::take_findings`]. On a read-only file system the log that is there is gone on
    /// with once it can be written: nobody should have to do without a daemon for that.
    ///
    /// # Errors
    /// Another process writes it; the file or its head can't be opened; or the file is not a plain file that root alone can
    /// write.
    pub fn open(options: &LogOptions) -> io::Result<Self> {
        let place = Place::find(&options.path)?;
        // First of all: by it the log is ours.
        let head = options.head.as_ref().map(|path| {
            let file = HeadFile::new(path, &place.path);
            file.map_err(|error| io::Error::new(error.kind(), format!("its head {}: {error}", path.display())))
        });
        let head = head.transpose()?;
        // What nothing is noted of elsewhere is written by a `run` that has just been asked for it: it is told at once.
        let (file, read_only) = if head.is_some() { place.open_or_read()? } else { (open_alone(&place)?, false) };
        let noted = match head.as_ref().map(HeadFile::read) {
            None => Noted::Never,
            Some(Ok(Some(head))) => Noted::Head(head),
            Some(Ok(None)) => Noted::Lost("nothing is noted about it in the state directory".to_owned()),
            Some(Err(error)) => Noted::Lost(format!("its head in the state directory can't be read: {error}")),
        };
        let mut log = Self { read_only, ..Self::new(place, options.keeping.clone(), file, head) };
        log.go_on(&noted)?;
        if !read_only {
            log.expire();
        }
        Ok(log)
    }

    /// A log that nothing is known of yet but where it is.
    fn new(place: Place, keeping: Audit, file: File, head: Option<HeadFile>) -> Self {
        Self {
            place,
            keeping,
            file,
            read_only: false,
            whole: 0,
            length: 0,
            torn: None,
            seq: 0,
            hash: None,
            first: None,
            head,
            findings: Vec::new(),
            expired: Vec::new(),
            unsynced: false,
            synced: Instant::now(),
            troubles: Troubles::default(),
        }
    }

    /// Finds the place in the chain from which to go on in the file that is open.
    fn go_on(&mut self, noted: &Noted) -> io::Result<()> {
        let resumed = resume(&self.file, &self.place.shown(), noted)?;
        let torn = Torn { end: resumed.end, found: true };
        (self.seq, self.hash, self.torn) = (resumed.seq, resumed.hash, Some(torn).filter(|torn| !torn.end.is_empty()));
        self.length = self.file.metadata()?.len();
        self.whole = self.length;
        self.findings.extend(resumed.findings);
        let first = lines::first_line(&self.file)?.and_then(|line| Brief::of(&line));
        self.first = first.and_then(|first| Some((first.seq?, time_of(&first))));
        Ok(())
    }

    /// Opens the file of the same name again, after somebody has moved this one away. The chain goes on.
    ///
    /// # Errors
    /// As for [`Self::open`]; the old file stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        let place = Place::find(&self.place.path)?;
        let file = place.open()?;
        let (new, old) = (file.metadata()?, self.file.metadata()?);
        if (new.dev(), new.ino()) == (old.dev(), old.ino()) {
            if std::mem::take(&mut self.read_only) {
                (self.place, self.file) = (place, file);
                self.expire();
            }
            (self.troubles.truncated, self.troubles.syncing) = (false, None);
            return Ok(());
        }
        if self.head.is_none() {
            lock::take(&file, ANOTHER)?;
        }
        self.mend();
        self.sync();
        let synced = !self.unsynced;
        let noted = match self.hash {
            Some(hash) => {
                let log = String::new();
                Noted::Head(head::Head {
                    seq: self.seq,
                    hash,
                    inode: self.file.metadata()?.ino(),
                    bytes: self.whole,
                    log,
                })
            }
            None => Noted::Never,
        };
        let old = (std::mem::replace(&mut self.place, place), std::mem::replace(&mut self.file, file));
        if let Err(error) = self.go_on(&noted) {
            (self.place, self.file) = old;
            return Err(error);
        }
        (self.troubles.truncated, self.read_only) = (false, false);
        if synced {
            self.troubles.syncing = None;
        }
        Ok(())
    }

    /// Number of the last record.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What does not work now.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// What was found since the last time, in order. Each is to be told by a record in the log: one that starts a chain
    /// anew by the very next one.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// Inode and length of the file.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn position(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.ino(), metadata.len()))
    }

    /// A log that is this file.
    #[cfg(test)]
    pub fn of(file: File) -> Self {
        let options = LogOptions { path: "/tmp".into(), head: None, keeping: Audit::default() };
        let place = Place::find(&options.path).expect("/tmp is there");
        Self::new(place, options.keeping, file, None)
    }

    /// Looks whether the file is as it was left, mends its end, and rotates it when it is time. To be called before each
    /// [`Self::add`], and from time to time.
    pub fn prepare(&mut self) {
        // While it is read-only nobody else changes it either.
        if self.read_only && self.reopen().is_err() {
            return;
        }
        self.look();
        self.mend();
        if self.torn.is_none() && self.is_due() {
            self.rotate();
        }
    }

    /// Adds lines of records with their numbers, each bound to the one before. Gives those that are in the log now, from the
    /// first one on, as they stand there.
    ///
    /// # Errors
    /// Why the others are not. Of the first of these nothing is in the log, or else its torn line is ended before the next
    /// one is written, and that is a finding.
    pub fn add(&mut self, lines: &[(u64, String)]) -> (Vec<String>, io::Result<()>) {
        let mut hash = self.hash;
        let mut sealed: Vec<(String, LineHash)> = Vec::with_capacity(lines.len());
        for (_, line) in lines {
            let (line, own) = seal(line, hash);
            hash = Some(own);
            sealed.push((line, own));
        }
        let bytes: String = sealed.iter().map(|(line, _)| line.as_str()).collect();
        let bytes = bytes.as_bytes();
        let (before, was) = (self.whole, (self.seq, self.hash));
        let (written, mut result) = if self.read_only {
            (0, Err(io::ErrorKind::ReadOnlyFilesystem.into()))
        } else if self.torn.is_some() {
            (0, Err(io::Error::other("a line that was cut off can't be ended")))
        } else {
            write(&mut self.file, bytes)
        };
        let mut whole = 0;
        let fitted = sealed.iter().take_while(|(line, _)| {
            let fits = whole + line.len() <= written;
            whole += if fits { line.len() } else { 0 };
            fits
        });
        let mut count = fitted.count();
        self.whole += whole as u64;
        self.length += written as u64;
        if let Some(((seq, _), (_, hash))) = count.checked_sub(1).and_then(|last| lines.get(last).zip(sealed.get(last)))
        {
            (self.seq, self.hash, self.unsynced) = (*seq, Some(*hash), true);
        }
        if whole < written {
            self.torn = Some(Torn { end: end_of(bytes.get(whole..written).unwrap_or_default()), found: false });
            self.mend();
        }
        if self.keeping.fsync == Fsync::Always && count > 0 {
            self.sync();
            if let Some(error) = &self.troubles.syncing {
                result = Err(io::Error::other(error.clone()));
                // What may not outlive the machine does not count as written. If it can't be taken back either, it is there.
                if self.file.set_len(before).is_ok() {
                    (self.whole, self.length, self.torn) = (before, before, None);
                    (self.seq, self.hash) = was;
                }
                count = 0;
            }
        }
        if self.first.is_none() && count > 0 {
            self.first = lines.first().map(|(seq, _)| (*seq, SystemTime::now()));
        }
        if count > 0 || self.troubles.noting.is_some() {
            self.note_head();
        }
        self.sync_if_due();
        self.remove_expired();
        sealed.truncate(count);
        (sealed.into_iter().map(|(line, _)| line).collect(), result)
    }
}

/// What to do where somebody else writes a file of records.
const ANOTHER: &str = "wait for its end, or name another file";

/// Opens a file of records that no head tells to be ours: it is locked itself, for it is neither renamed nor replaced.
fn open_alone(place: &Place) -> io::Result<File> {
    let file = place.open()?;
    lock::take(&file, ANOTHER)?;
    Ok(file)
}

/// Why something does not work now; the first time it is logged.
fn trouble(what: &str, before: Option<String>, result: io::Result<()>) -> Option<String> {
    let error = result.err()?.to_string();
    if before.is_none() {
        tracing::error!("cannot {what}: {error}");
    }
    Some(error)
}

/// Writes as much as fits.
fn write(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    loop {
        let rest = bytes.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return (written, Ok(()));
        }
        match file.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
}

/// What makes a line of a torn one that is no link of a chain: where the line feed alone is missing, something before it.
fn end_of(torn: &[u8]) -> &'static [u8] {
    if read(torn).is_ok() { b"#\n" } else { b"\n" }
}

/// When a record happened, as far as it can be read.
fn time_of(record: &Brief) -> SystemTime {
    humantime::parse_rfc3339(&record.time).unwrap_or_else(|_| SystemTime::now())
}

#[cfg(test)]
mod tests;
