//! Verifying an audit log over all its files: that each line follows the one before it, that the log begins where it began
//! or was made to begin by us, and that its end is there. Reads line by line, also what is packed; what is found is a report.

mod check;
mod report;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use super::head::Head;
pub use report::{Problem, Report};

use super::lines::{Brief, is_packed, lines_at};
use super::rotated;
use crate::record::LineHash;
use check::Checker;

/// Lines at the start of a file in which its first number is looked for.
const FIRST_LINES: usize = 100;

/// What must stand before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Nothing, or what a later record says was removed.
    #[default]
    Start,
    /// The line with this hash.
    Hash(LineHash),
    /// Anything: this is not checked.
    Any,
}

/// What is checked beside the files themselves.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// The record that was written last, or why that is not known. It must have been read before the files are opened.
    pub head: Option<Head>,
    /// What must stand before the first record.
    pub after: After,
}

/// Verifies the log that these files are, in the order of their first records whatever the order in which they are named.
///
/// # Errors
/// A file can't be read, or is named twice; the error says which.
pub fn verify(files: &[PathBuf], checks: &Checks) -> io::Result<Report> {
    let open = |path: &PathBuf| File::open(path).map(|file| (path.clone(), file)).map_err(|error| of(path, error));
    verify_open(&files.iter().map(open).collect::<io::Result<Vec<_>>>()?, checks)
}

/// The same for files that are open.
///
/// # Errors
/// As for [`verify`].
pub fn verify_open(files: &[(PathBuf, File)], checks: &Checks) -> io::Result<Report> {
    let mut opened = Vec::new();
    let mut seen: HashMap<(u64, u64), &PathBuf> = HashMap::new();
    for (path, file) in files {
        let metadata = file.metadata().map_err(|error| of(path, error))?;
        if let Some(other) = seen.insert((metadata.dev(), metadata.ino()), path) {
            let message = format!("it is the same file as {}; name it once", other.display());
            return Err(of(path, io::Error::other(message)));
        }
        let first = first_seq(path, file).map_err(|error| of(path, error))?;
        opened.push((first, path, file));
    }
    opened.sort_by_key(|(first, _, _)| *first);
    let mut checker = Checker::new(checks);
    let count = opened.len();
    for (index, (_, path, file)) in opened.iter().enumerate() {
        checker.file(path, named(path));
        let mut lines = lines_at(path, file).map_err(|error| of(path, error))?;
        while let Some(line) = lines.next().map_err(|error| of(path, error))? {
            checker.line(&line, index + 1 == count);
        }
        checker.end_file();
    }
    Ok(checker.end())
}

/// An error with the file that it is about.
fn of(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The number that a rotated file's first record has by its name.
fn named(path: &Path) -> Option<u64> {
    let name = if is_packed(path) { path.file_stem() } else { path.file_name() };
    name.and_then(rotated::first_seq)
}

/// The number of the first record of a file, by which it is put in order; by its name where no record can be read.
fn first_seq(path: &Path, file: &File) -> io::Result<u64> {
    let mut lines = lines_at(path, file)?;
    for _ in 0..FIRST_LINES {
        let Some(line) = lines.next()? else { break };
        if let Some(seq) = Brief::seq(line.bytes) {
            return Ok(seq);
        }
    }
    Ok(named(path).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
