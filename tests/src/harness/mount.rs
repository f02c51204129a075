//! A mount that others made, taken away at the end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A mount.
pub struct Mount {
    place: PathBuf,
}

impl Mount {
    /// Shows a directory at another place, too.
    pub fn bind(from: &Path, to: &Path) -> Result<Self> {
        Self::with(&[OsStr::new("-o"), OsStr::new("bind"), from.as_os_str(), to.as_os_str()], to)
    }

    /// Mounts at `to`, with these words for `mount`.
    pub fn with(words: &[&OsStr], to: &Path) -> Result<Self> {
        let done = Command::new("mount").args(words).output().context("run mount")?;
        ensure!(done.status.success(), "mount {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(Self { place: to.to_path_buf() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}
