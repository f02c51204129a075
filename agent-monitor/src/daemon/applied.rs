//! Policies that were applied over the control socket: a directory of the daemon's own, below `state_dir`, in which each is
//! a file of its name. Unlike the rest of the state it outlives a boot and `daemon --uninstall`, so what is written here is
//! on the disk before anybody is told.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agent_monitor_common::limit::NAME_BYTES;

/// Ending of each file.
const ENDING: &str = ".yaml";

/// The directory of the applied policies.
#[derive(Clone, Debug)]
pub struct Applied {
    directory: PathBuf,
}

impl Applied {
    /// The directory below this `state_dir`, made where it is missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("applied");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of the policy with this name.
    ///
    /// # Errors
    /// No file can have it.
    pub fn path(&self, name: &str) -> Result<PathBuf, String> {
        const MOST: usize = NAME_BYTES - ENDING.len();
        if name.len() > MOST {
            let message = format!("has {} bytes; a policy that is applied is kept in a file of its name", name.len());
            return Err(format!("the name {message}, so it can have {MOST}: give it a shorter one"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(format!("{name:?} is no name of a policy: use lower case letters, digits, - and ."));
        }
        // A file of that name would be taken for a table of cases, see `library::policy_files`.
        if name.ends_with(".cases") {
            return Err(format!("{name} can't be applied, because NAME.cases.yaml is a table of cases: rename it"));
        }
        Ok(self.directory.join(format!("{name}{ENDING}")))
    }

    /// Whether a document that comes from this path was applied.
    pub fn holds(&self, path: &str) -> bool {
        Path::new(path).parent() == Some(&self.directory)
    }

    /// Whether a document that comes from this path was applied and its file is gone. Where the directory itself is gone
    /// nothing is said of what was in it.
    pub fn has_lost(&self, path: &str) -> bool {
        let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        self.holds(path) && self.directory.is_dir() && fs::symlink_metadata(path).is_err_and(is_missing)
    }

    /// What a file holds; none where it is not there.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Makes a file hold this, or removes it, durably: whole or not at all.
    ///
    /// # Errors
    /// It can't be written; what was there before is there still, unless only its being on the disk is in doubt.
    pub fn set(&self, path: &Path, text: Option<&[u8]>) -> io::Result<()> {
        match text {
            Some(text) => {
                // Hidden: nobody takes it for a policy.
                let new = self.directory.join(".new");
                let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
                file.write_all(text)?;
                file.sync_all()?;
                fs::rename(&new, path)?;
            }
            None => match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            },
        }
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_lost_where_its_directory_is_there_and_it_is_not() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-lost", std::process::id()));
        let applied = Applied::open(&root).expect("directory can be made");
        let path = applied.path("a").expect("is a name");
        let shown = path.display().to_string();
        assert!(applied.has_lost(&shown) && !applied.has_lost("/does/not/exist/a.yaml"));
        applied.set(&path, Some(b"")).expect("can be written");
        assert!(!applied.has_lost(&shown));
        fs::remove_dir_all(root).expect("directory can be removed");
        assert!(!applied.has_lost(&shown));
    }

    #[test]
    fn a_file_is_whole_or_not_there_and_no_name_leads_elsewhere() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-applied", std::process::id()));
        let applied = Applied::open(&root).expect("directory can be made");
        let path = applied.path("a.b-1").expect("is a name");
        assert!(applied.holds(&path.display().to_string()) && !applied.holds("/etc/agent-monitor/policies/a.yaml"));
        assert_eq!(applied.read(&path).expect("can be looked for"), None);
        for text in [Some(b"one".as_slice()), Some(b"two"), None, None] {
            applied.set(&path, text).expect("can be written");
            assert_eq!(applied.read(&path).expect("can be read").as_deref(), text);
        }
        let left: Vec<_> = fs::read_dir(applied.directory()).expect("is there").collect();
        assert!(left.is_empty(), "{left:?}");
        for name in ["", ".", "..", "../x", "a/b", "a\0b", ".new", "x.cases", &"n".repeat(251)] {
            assert!(applied.path(name).is_err(), "{name:?} must be refused");
        }
        fs::remove_dir_all(root).expect("directory can be removed");
    }
}
