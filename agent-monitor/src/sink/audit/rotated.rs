//! The files that an audit log was rotated to: its name, a point, and the number of their first record in 20 digits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// Digits of the number.
const DIGITS: usize = 20;

/// What the log is renamed to when its first record has this number.
pub fn name(log: &OsStr, first_seq: u64) -> OsString {
    let mut name = log.to_owned();
    name.push(format!(".{first_seq:0DIGITS$}"));
    name
}

/// The number of the first record that a file has by its name; none where it was not rotated by us.
pub fn first_seq(file: &OsStr) -> Option<u64> {
    let (_, digits) = file.to_str()?.rsplit_once('.')?;
    if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The rotated files of a log with the numbers of their first records, the oldest first.
///
/// # Errors
/// The directory can't be read.
pub fn list(log: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(directory), Some(log)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let file = entry?.file_name();
        if let Some(seq) = first_seq(&file).filter(|seq| file == name(log, *seq)) {
            found.push((seq, directory.join(file)));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory;
    use super::*;

    #[test]
    fn only_files_that_were_rotated_by_us_are_listed_in_the_order_of_their_numbers() {
        let path = directory("rotated");
        let log = path.join("audit.jsonl");
        let names = [11, 2].map(|seq| name(OsStr::new("audit.jsonl"), seq));
        assert_eq!(names[1], "audit.jsonl.00000000000000000002");
        for name in names.iter().map(OsString::as_os_str).chain([
            OsStr::new("audit.jsonl"),
            OsStr::new("audit.jsonl.1"),
            OsStr::new("other.jsonl.00000000000000000001"),
            OsStr::new("audit.jsonl.0000000000000000000x"),
            OsStr::new("audit.jsonl.00000000000000000001.gz"),
        ]) {
            std::fs::write(path.join(name), "").expect("file can be made");
        }
        let found: Vec<u64> = list(&log).expect("directory can be read").into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(found, [2, 11]);
    }
}
