//! Going on with a log that is there: what its end says, and what was noted about it, become the place in the chain from
//! which the next record goes on. What does not fit is found here.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::finding::{Finding, Reason};
use super::head::Head;
use super::lines::{Brief, last_line, lines_from};
use crate::record::LineHash;
use crate::record::chain::read;

/// Where the next record goes on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Number of the last record.
    pub seq: u64,
    /// Hash of its line; none where a chain starts.
    pub hash: Option<LineHash>,
    /// What must end the last line, where it has no end.
    pub end: &'static [u8],
    /// What is to be told first.
    pub findings: Vec<Finding>,
}

/// What was noted about the last record.
#[derive(Clone, Debug)]
pub enum Noted {
    /// Nothing is noted of such a log.
    Never,
    /// Nothing, or nothing that can be read, and it should be; why.
    Lost(String),
    /// This.
    Head(Head),
}

/// Finds where to go on in this file.
///
/// # Errors
/// The file can't be read.
pub fn resume(file: &File, name: &str, noted: &Noted) -> io::Result<Resumed> {
    let metadata = file.metadata()?;
    let (last, rest) = last_line(file, metadata.len())?;
    let end = match (&last, noted) {
        (_, Noted::Head(head)) => after_head(file, head, metadata.ino(), metadata.len(), last.as_deref())?,
        (Some(last), Noted::Never | Noted::Lost(_)) => by_itself(last),
        (None, Noted::Never | Noted::Lost(_)) => Ok((0, None)),
    };
    let finding = |reason, after: Option<u64>, detail: String| {
        let head = match noted {
            Noted::Head(head) => Some(head),
            Noted::Never | Noted::Lost(_) => None,
        };
        let (before_seq, last_hash) = (head.map(|head| head.seq + 1), head.map(|head| head.hash));
        Finding { reason, file: name.to_owned(), after_seq: after, before_seq, last_hash, detail }
    };
    let mut resumed = Resumed::default();
    match end {
        Ok((seq, hash)) => (resumed.seq, resumed.hash) = (seq, hash),
        Err(Break { reason, seq, detail }) => {
            resumed.seq = match noted {
                Noted::Head(head) => head.seq.max(seq.unwrap_or(0)),
                Noted::Never | Noted::Lost(_) => seq.unwrap_or(0),
            };
            resumed.findings.push(finding(reason, seq, detail));
        }
    }
    if !rest.is_empty() {
        resumed.end = b"\n";
        match (read(&rest), Brief::seq(&rest)) {
            // All but the line feed is there.
            (Ok(link), Some(seq)) if resumed.findings.is_empty() && link.previous == resumed.hash => {
                (resumed.seq, resumed.hash) = (seq, Some(link.hash));
            }
            _ => {
                let detail = format!("{} bytes of a record stand without an end behind the last whole one", rest.len());
                let cut = finding(Reason::LineCutOff, Some(resumed.seq), detail);
                resumed.findings.push(Finding { before_seq: Some(resumed.seq + 1), last_hash: None, ..cut });
            }
        }
    }
    if let Noted::Lost(why) = noted
        && metadata.len() > 0
    {
        let detail = format!("whether records at the end of the file are missing can't be said: {why}");
        resumed.findings.push(finding(Reason::HeadMissing, None, detail));
    }
    Ok(resumed)
}

/// Why the chain can't go on.
struct Break {
    reason: Reason,
    /// Number of the last record that is there, as far as it can be read.
    seq: Option<u64>,
    detail: String,
}

type End = Result<(u64, Option<LineHash>), Break>;

/// What the last line says, where nothing else is known.
fn by_itself(last: &[u8]) -> End {
    let seq = Brief::seq(last);
    let broken = |detail| Break { reason: Reason::ChainBroken, seq, detail };
    match (read(last), seq) {
        (Ok(link), Some(seq)) => Ok((seq, Some(link.hash))),
        (Err(error), _) => Err(broken(format!("the last line is no link of a chain: {error}"))),
        (Ok(_), None) => Err(broken("the last line has no sequence number".to_owned())),
    }
}

/// The file must have the record that was noted and go on from it, or begin after it.
fn after_head(file: &File, head: &Head, inode: u64, length: u64, last: Option<&[u8]>) -> io::Result<End> {
    let there = last.and_then(Brief::seq);
    let missing = |detail| Err(Break { reason: Reason::TailMissing, seq: there, detail });
    if inode == head.inode && length < head.bytes {
        let detail = format!("the file has {length} bytes, and had {} when the last record was written", head.bytes);
        return Ok(missing(detail));
    }
    let behind = if length < head.bytes { None } else { last_line(file, head.bytes)?.0 };
    let from = match behind.map(|line| read(&line)) {
        Some(Ok(link)) if link.hash == head.hash => head.bytes,
        _ => 0,
    };
    let mut lines = lines_from(file, from)?;
    let (mut seq, mut hash, mut at) = (head.seq, head.hash, from);
    while let Some(line) = lines.next()? {
        if !line.ended {
            break;
        }
        let link = read(line.bytes);
        match (link, Brief::seq(line.bytes)) {
            (Ok(link), Some(number)) if link.previous == Some(hash) => (seq, hash) = (number, link.hash),
            _ if at == 0 && there.is_some_and(|there| there < head.seq) => {
                return Ok(missing(format!("the record that was written last, {}, is not in the file", head.seq)));
            }
            _ => {
                let detail = format!("the line at byte {at} does not follow record {seq}, which was written before it");
                return Ok(Err(Break { reason: Reason::ChainBroken, seq: there, detail }));
            }
        }
        at += line.length;
    }
    Ok(Ok((seq, Some(hash))))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{directory, line};
    use super::*;
    use crate::record::chain::seal;

    /// Three lines with their hashes.
    fn three() -> (Vec<String>, Vec<LineHash>) {
        let (mut lines, mut hashes) = (Vec::new(), Vec::new());
        for seq in 1..=3 {
            let (line, hash) = seal(&line(seq), hashes.last().copied());
            lines.push(line);
            hashes.push(hash);
        }
        (lines, hashes)
    }

    /// What is found in a file with this text, of whose first `noted` lines the last is noted.
    fn found(name: &str, text: &str, noted: usize) -> (u64, Option<LineHash>, Vec<Reason>, &'static [u8]) {
        found_in(name, text, noted, true)
    }

    /// The same, where the record that was noted may have been written into another file.
    fn found_in(
        name: &str,
        text: &str,
        noted: usize,
        same: bool,
    ) -> (u64, Option<LineHash>, Vec<Reason>, &'static [u8]) {
        let path = directory(name).join("audit.jsonl");
        std::fs::write(&path, text).expect("file can be written");
        let file = File::open(&path).expect("file is there");
        let (lines, hashes) = three();
        let head = noted.checked_sub(1).map_or(Noted::Never, |last| {
            Noted::Head(Head {
                seq: noted as u64,
                hash: hashes[last],
                inode: file.metadata().expect("file is there").ino() + u64::from(!same),
                bytes: lines[..noted].concat().len() as u64,
                log: String::new(),
            })
        });
        let resumed = resume(&file, "audit.jsonl", &head).expect("file can be read");
        let reasons = resumed.findings.iter().map(|finding| finding.reason).collect();
        (resumed.seq, resumed.hash, reasons, resumed.end)
    }

    #[test]
    fn a_log_that_was_left_well_goes_on() {
        let (lines, hashes) = three();
        let all = lines.concat();
        for noted in 0..=3 {
            assert_eq!(found("well", &all, noted), (3, Some(hashes[2]), vec![], &b""[..]), "{noted}");
        }
        assert_eq!(found("well", "", 0), (0, None, vec![], &b""[..]));
        // The line feed alone is missing.
        assert_eq!(found("well", all.trim_end(), 2), (3, Some(hashes[2]), vec![], &b"\n"[..]));
        // It was rotated away after the second record, and what is noted is of the file before.
        assert_eq!(found_in("well", &lines[2], 2, false), (3, Some(hashes[2]), vec![], &b""[..]));
        assert_eq!(found_in("well", "", 2, false), (2, Some(hashes[1]), vec![], &b""[..]));
        // It was copied to another disk.
        assert_eq!(found_in("well", &all, 2, false), (3, Some(hashes[2]), vec![], &b""[..]));
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_and_told() {
        let (lines, hashes) = three();
        let text = lines[..2].concat() + &lines[2][..20];
        for noted in [0, 1, 2] {
            assert_eq!(found("cut", &text, noted), (2, Some(hashes[1]), vec![Reason::LineCutOff], &b"\n"[..]));
        }
    }

    #[test]
    fn what_was_changed_or_cut_starts_a_new_chain() {
        let (lines, _) = three();
        let all = lines.concat();
        let changed = all.replace("\"seq\":3", "\"seq\":4");
        assert_eq!(found("broken", &changed, 3), (4, None, vec![Reason::ChainBroken], &b""[..]));
        assert_eq!(found("broken", &changed, 0), (4, None, vec![Reason::ChainBroken], &b""[..]));
        assert_eq!(found("broken", &lines[..2].concat(), 3), (3, None, vec![Reason::TailMissing], &b""[..]));
        assert_eq!(found("broken", "", 3), (3, None, vec![Reason::TailMissing], &b""[..]));
        assert_eq!(found("broken", "no record\n", 0), (0, None, vec![Reason::ChainBroken], &b""[..]));
        let torn = lines[0].clone() + &lines[1][..20];
        let (seq, hash, reasons, end) = found("broken", &torn, 3);
        assert_eq!((seq, hash, end), (3, None, &b"\n"[..]));
        assert_eq!(reasons, [Reason::TailMissing, Reason::LineCutOff]);
    }
}
