//! Reading the lines of an audit log, forward and from its end, with bounded memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// Longest line that is kept whole. A request of the control socket, whose labels become part of records, has less.
pub const LONGEST: usize = 64 << 20;
/// Bytes that are read from the end at first.
const WINDOW: u64 = 64 << 10;

/// What is needed of a record in order to follow it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Brief {
    /// Its number.
    pub seq: Option<u64>,
    /// When it happened.
    #[serde(default)]
    pub time: String,
}

impl Brief {
    /// Of a line; none where it is no record.
    pub fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The number of a line's record; none where it is no record or has none.
    pub fn seq(line: &[u8]) -> Option<u64> {
        Self::of(line)?.seq
    }
}

/// A line, or what is behind the last one.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its bytes without the line feed; of one that is too long the first ones.
    pub bytes: &'a [u8],
    /// It has a line feed.
    pub ended: bool,
    /// It is longer than [`LONGEST`].
    pub too_long: bool,
    /// How many bytes it has in the file.
    pub length: u64,
}

/// The lines of a file.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// Of what is read from here.
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(1 << 17, reader), line: Vec::new() }
    }

    /// The next line.
    ///
    /// # Errors
    /// It can't be read.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut length = 0;
        let mut ended = false;
        while !ended {
            let read = self.reader.fill_buf()?;
            if read.is_empty() {
                break;
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            ended = end.is_some();
            let text = read.get(..end.unwrap_or(read.len())).unwrap_or_default();
            let room = (LONGEST + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
            let used = text.len() + usize::from(ended);
            self.reader.consume(used);
            length += used as u64;
        }
        let too_long = self.line.len() > LONGEST;
        Ok((length > 0).then_some(Line { bytes: &self.line, ended, too_long, length }))
    }
}

/// The lines of a file from this byte on.
///
/// # Errors
/// The file can't be read.
pub fn lines_from(mut file: &File, start: u64) -> io::Result<Lines<&File>> {
    file.seek(SeekFrom::Start(start))?;
    Ok(Lines::new(file))
}

/// Whether a file is packed, as logrotate's `compress` does it.
pub fn is_packed(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("gz"))
}

/// The lines of the file that was opened at this path, unpacked where it is packed.
///
/// # Errors
/// The file can't be read.
pub fn lines_at<'a>(path: &Path, mut file: &'a File) -> io::Result<Lines<Box<dyn Read + 'a>>> {
    file.seek(SeekFrom::Start(0))?;
    let reader: Box<dyn Read> = if is_packed(path) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(Lines::new(reader))
}

/// The first line of a file, where it has one.
///
/// # Errors
/// The file can't be read.
pub fn first_line(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut lines = lines_from(file, 0)?;
    Ok(lines.next()?.filter(|line| line.ended).map(|line| line.bytes.to_vec()))
}

/// What stands before this byte: the last whole line (without its line feed), and what follows it without one.
///
/// # Errors
/// The file can't be read, or the line is too long.
pub fn last_line(file: &File, end: u64) -> io::Result<(Option<Vec<u8>>, Vec<u8>)> {
    let mut window = WINDOW;
    loop {
        let start = end.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        let feed = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
        let last = feed(&bytes);
        let before = last.and_then(|last| feed(bytes.get(..last)?));
        if let (Some(last), Some(from)) = (last, before.map(|at| at + 1).or((start == 0).then_some(0))) {
            let rest = bytes.split_off(last + 1);
            bytes.truncate(last);
            return Ok((Some(bytes.split_off(from)), rest));
        }
        if start == 0 {
            return Ok((None, bytes));
        }
        if window > 2 * LONGEST as u64 {
            return Err(io::Error::other(format!("its last line is longer than {LONGEST} bytes; move the file away")));
        }
        window *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory;
    use super::*;

    #[test]
    fn lines_are_read_with_what_follows_the_last_one() {
        let mut lines = Lines::new(&b"a\n\nbc"[..]);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().expect("bytes can be read") {
            seen.push((line.bytes.to_vec(), line.ended, line.length));
        }
        assert_eq!(seen, [(b"a".to_vec(), true, 2), (Vec::new(), true, 1), (b"bc".to_vec(), false, 2)]);
    }

    #[test]
    fn the_last_line_is_found_however_long_it_is() {
        let path = directory("last").join("log");
        let long = "x".repeat(300 << 10);
        for (text, last, rest) in [
            (String::new(), None, ""),
            ("torn".to_owned(), None, "torn"),
            ("a\n".to_owned(), Some("a"), ""),
            ("a\nb\nto".to_owned(), Some("b"), "to"),
            (format!("a\n{long}\n"), Some(long.as_str()), ""),
            (format!("{long}\nrn"), Some(long.as_str()), "rn"),
        ] {
            std::fs::write(&path, &text).expect("file can be written");
            let file = File::open(&path).expect("file is there");
            let found = last_line(&file, text.len() as u64).expect("file can be read");
            assert_eq!(found, (last.map(|last| last.as_bytes().to_vec()), rest.as_bytes().to_vec()));
        }
    }
}
