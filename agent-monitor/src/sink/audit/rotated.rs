//! The files that an audit log was rotated to: its name, a point, and the number of their first record in 20 digits. And all
//! files of a log that is written meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Digits of the number.
const DIGITS: usize = 20;
/// How often the files are opened anew because the log was rotated meanwhile, and how long is waited before.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

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

/// The files of a log, open, the oldest first: all that it had at one moment, each once, also while it is rotated.
///
/// # Errors
/// One can't be opened, which is named, or the log is rotated all the time.
pub fn open(log: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    for _ in 1..TRIES {
        match open_once(log) {
            // Between two names of the log there is none; and old files are removed.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Some(files)) => return Ok(files),
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    open_once(log)?.ok_or_else(|| io::Error::other(format!("{} is rotated all the time; try again", log.display())))
}

/// The same; none where the log was rotated meanwhile.
fn open_once(log: &Path) -> io::Result<Option<Vec<(PathBuf, File)>>> {
    let of = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    let open = |path: &Path| {
        let file = File::open(path);
        let opened = file.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        opened.map_err(|error| of(path, error))
    };
    // First: what is rotated from now on is this one, and is read to its end.
    let (live, written) = open(log)?;
    let mut files = Vec::new();
    for (_, path) in list(log).map_err(|error| of(log, error))? {
        let (file, metadata) = open(&path)?;
        if !same(&metadata, &written) {
            files.push((path, file));
        }
    }
    files.push((log.to_owned(), live));
    let now = std::fs::metadata(log).map_err(|error| of(log, error))?;
    Ok(same(&now, &written).then_some(files))
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
