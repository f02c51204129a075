//! The head of an audit log: its last record, noted outside of it, so that a tail that was cut off is missed. It outlives a
//! boot, unlike what else lies in the state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::record::LineHash;

/// Bytes of what changes. It is written in place with one call, in one page: who reads meanwhile reads all of it, and
/// where the process is killed all of it is there, or what was there before.
const BLOCK: usize = 256;
/// How often what can't be understood is read again.
const TRIES: u32 = 5;

/// The last record of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Hash of its line.
    pub hash: LineHash,
    /// Inode of the file that it is in.
    pub inode: u64,
    /// Where its line ends there.
    pub bytes: u64,
    /// Path of the log.
    pub log: String,
}

impl Head {
    /// Reads a head, also while it is written.
    ///
    /// # Errors
    /// The file can't be read or is none.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut tries = 0..TRIES;
        loop {
            tries.next();
            match serde_json::from_slice(&std::fs::read(path)?) {
                Err(error) if tries.is_empty() => return Err(io::Error::other(error)),
                // On some file systems a reader may see a part of what is being written.
                Err(_) => {}
                Ok(head) => return Ok(head),
            }
        }
    }

    fn block(&self) -> String {
        let Self { seq, hash, inode, bytes, .. } = self;
        let block = format!("{{\"seq\":{seq},\"hash\":\"{hash}\",\"inode\":{inode},\"bytes\":{bytes},");
        format!("{block:<width$}\n", width = BLOCK - 1)
    }
}

/// The file with the head of a log.
#[derive(Debug)]
pub struct HeadFile {
    /// Its directory is locked: whoever has that is alone in writing the log.
    place: Place,
    log: String,
    file: Option<File>,
    /// Its name may not be on its disk.
    is_new: bool,
}

impl HeadFile {
    /// For the head of the log at this path, as long as nobody else has it. The lock is the directory's: the log is renamed
    /// and replaced, and who may read the log could lock it.
    ///
    /// # Errors
    /// The directory can't be made, or somebody else has it.
    pub fn new(path: &Path, log: &Path) -> io::Result<Self> {
        let place = Place::find(path)?;
        place.lock("stop that first, or give this one an audit_log and a state_dir of its own")?;
        Ok(Self { place, log: log.to_string_lossy().into_owned(), file: None, is_new: false })
    }

    /// What was noted: the head of this log, none where there is no head or another log's.
    ///
    /// # Errors
    /// There is one that can't be read.
    pub fn read(&self) -> io::Result<Option<Head>> {
        match Head::read(&self.place.path) {
            Ok(head) => Ok(Some(head).filter(|head| head.log == self.log)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes the last record.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put(&mut self, seq: u64, hash: LineHash, inode: u64, bytes: u64) -> io::Result<()> {
        let head = Head { seq, hash, inode, bytes, log: self.log.clone() };
        match &self.file {
            // One that was removed is made anew.
            Some(file) if file.metadata()?.nlink() > 0 => file.write_all_at(head.block().as_bytes(), 0),
            _ => {
                (self.file, self.is_new) = (Some(make(&self.place.path, &head)?), true);
                Ok(())
            }
        }
    }

    /// Has it on its disk.
    ///
    /// # Errors
    /// The disk can't be written.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data()?;
        if self.is_new {
            self.place.sync()?;
            self.is_new = false;
        }
        Ok(())
    }
}

/// Replaces the file whole.
fn make(path: &Path, head: &Head) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let log = serde_json::to_string(&head.log).map_err(io::Error::other)?;
    file.write_all(format!("{}\"log\":{log}}}\n", head.block()).as_bytes())?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory;
    use super::*;
    use crate::record::chain::seal;

    #[test]
    fn a_head_is_of_one_log_and_of_its_last_record() {
        let path = directory("head").join("state/head.json");
        let (_, hash) = seal("{}\n", None);
        let mut file = HeadFile::new(&path, Path::new("/log")).expect("directory can be made");
        assert_eq!(file.read().expect("nothing is no error"), None);
        for seq in [1, u64::MAX, 7] {
            file.put(seq, hash, u64::MAX, u64::MAX - seq).expect("head can be written");
            let head = Head { seq, hash, inode: u64::MAX, bytes: u64::MAX - seq, log: "/log".to_owned() };
            assert_eq!(file.read().expect("head can be read"), Some(head));
        }
        assert!(HeadFile::new(&path, Path::new("/log")).is_err(), "two have the head");
        drop(file);
        let other = HeadFile::new(&path, Path::new("/other")).expect("nobody has the head");
        assert_eq!(other.read().expect("head can be read"), None);
        drop(other);
        let mut file = HeadFile::new(&path, Path::new("/log")).expect("nobody has the head");
        std::fs::remove_file(&path).expect("head can be removed");
        file.put(8, hash, 1, 1).expect("head can be written");
        assert_eq!(file.read().expect("head can be read").map(|head| head.seq), Some(8));
        std::fs::write(&path, "{").expect("head can be broken");
        assert!(file.read().is_err());
    }
}
