//! The audit log: a file of lines that is only added to.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::record::Record;

/// Most bytes at the end of the log that are searched for the last record. Longer than any record.
const TAIL_BYTES: u64 = 256 << 10;

/// An open audit log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    /// The last line has no line feed: a write was cut off.
    torn: bool,
}

impl AuditLog {
    /// Opens the log for adding, and makes it (mode 0600) and its directory (mode 0700) where they are missing. A
    /// symbolic link, or anything but a plain file, is refused.
    ///
    /// Returns the number of the last record in it, 0 where there is none.
    ///
    /// # Errors
    /// The file can't be opened or is not a plain file.
    pub fn open(path: &Path) -> io::Result<(Self, u64)> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Not blocking, so that opening a pipe fails instead of waiting for a reader.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(flags.cast_signed());
        let mut file = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() > 1 {
            return Err(io::Error::other("not a plain file with one name"));
        }
        let length = metadata.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file).take(TAIL_BYTES).read_to_end(&mut tail)?;
        let torn = tail.last().is_some_and(|byte| *byte != b'\n');
        Ok((Self { path: path.to_owned(), file, torn }, last_seq(&tail)))
    }

    /// Opens the file of the same name again, after somebody has moved this one away.
    ///
    /// # Errors
    /// As for [`Self::open`]; the old file stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        (*self, _) = Self::open(&self.path)?;
        Ok(())
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
        Self { path: PathBuf::new(), file, torn: false }
    }

    /// Adds whole lines.
    ///
    /// # Errors
    /// Not all lines are in the file. How many bytes of them are, all of whole lines; what was written of the next line
    /// is taken back, or else ended by a line feed before the next lines, so that it can't be taken for a part of them.
    pub fn add(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.file.write_all(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0;
        let error = loop {
            let rest = lines.get(written..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            match self.file.write(rest) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let done = lines.get(..written).unwrap_or_default();
        let whole = done.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.torn = whole < written && self.take_back((written - whole) as u64).is_err();
        Err((whole, error))
    }

    /// Cuts this many bytes off the end of the file.
    fn take_back(&self, bytes: u64) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        self.file.set_len(length.saturating_sub(bytes))
    }
}

/// The number of the last whole record in the tail of a log.
fn last_seq(tail: &[u8]) -> u64 {
    let lines = tail.split(|byte| *byte == b'\n').rev();
    let parsed = lines.filter_map(|line| Record::parse(std::str::from_utf8(line).ok()?).ok()?.seq);
    parsed.into_iter().next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("temporary directory can be made");
        path
    }

    const LINE: &str = r#"{"time":"t","seq":41,"type":"loss","node_name":"n","stage":"s","reason":"r","count":1,"agent":null,"after_seq":1,"before_seq":2}"#;

    #[test]
    fn log_is_private_and_goes_on_after_its_last_number() {
        let path = directory("log").join("new/audit.jsonl");
        let (mut log, last) = AuditLog::open(&path).expect("log can be made");
        assert_eq!(last, 0);
        log.add(format!("{LINE}\n").as_bytes()).expect("log can be written");
        assert_eq!(std::fs::metadata(&path).expect("log is there").permissions().mode() & 0o777, 0o600);
        let (_, last) = AuditLog::open(&path).expect("log can be opened again");
        assert_eq!(last, 41);
    }

    #[test]
    fn a_torn_last_line_is_ended_first() {
        let path = directory("torn").join("audit.jsonl");
        std::fs::write(&path, format!("{LINE}\n{}", &LINE[..30])).expect("file can be made");
        let (mut log, last) = AuditLog::open(&path).expect("log can be opened");
        assert_eq!(last, 41);
        log.add(b"next\n").expect("log can be written");
        let text = std::fs::read_to_string(&path).expect("log is text");
        assert_eq!(text, format!("{LINE}\n{}\nnext\n", &LINE[..30]));
    }

    #[test]
    fn links_pipes_and_second_names_are_refused() {
        let path = directory("links");
        std::fs::write(path.join("plain"), "").expect("file can be made");
        std::os::unix::fs::symlink("plain", path.join("link")).expect("link can be made");
        assert!(AuditLog::open(&path.join("link")).is_err());
        std::fs::hard_link(path.join("plain"), path.join("second")).expect("link can be made");
        assert!(AuditLog::open(&path.join("second")).is_err());
        assert!(AuditLog::open(Path::new("/dev/null")).is_err());
    }
}
