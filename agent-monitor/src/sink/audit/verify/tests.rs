//! Whatever is done to a log that was written well is noticed.

use super::super::tests::{directory, line};
use super::*;
use crate::record::chain::seal;

/// A log of two files: their paths, and the head.
struct Log {
    files: [PathBuf; 2],
    texts: [String; 2],
    head: Head,
}

fn log(name: &str) -> Log {
    let path = directory(name);
    let (mut lines, mut hash) = (Vec::new(), None);
    for seq in 1..=6 {
        let (line, own) = seal(&line(seq), hash);
        (lines, hash) = ([lines, vec![line]].concat(), Some(own));
    }
    let texts = [lines[..3].concat(), lines[3..].concat()];
    let files = [path.join("audit.jsonl.00000000000000000001"), path.join("audit.jsonl")];
    let head = Head { seq: 6, hash: hash.expect("there are lines"), inode: 0, bytes: 0, log: String::new() };
    Log { files, texts, head }
}

impl Log {
    fn check(&self, texts: [&[u8]; 2], head: bool) -> Report {
        for (path, text) in self.files.iter().zip(texts) {
            std::fs::write(path, text).expect("file can be written");
        }
        let checks = Checks { head: head.then(|| self.head.clone()), after: After::Start };
        verify(&self.files, &checks).expect("files can be read")
    }

    /// What is found where the text of one file is another.
    fn with(&self, index: usize, text: &[u8], head: bool) -> Report {
        let mut texts = [self.texts[0].as_bytes(), self.texts[1].as_bytes()];
        texts[index] = text;
        self.check(texts, head)
    }
}

fn words(report: &Report) -> Vec<&'static str> {
    report.problems.iter().map(|problem| problem.problem).collect()
}

#[test]
fn a_log_is_intact_in_whatever_order_its_files_are_named() {
    let mut log = log("intact");
    for _ in 0..2 {
        let report = log.check([log.texts[0].as_bytes(), log.texts[1].as_bytes()], true);
        assert!(report.intact, "{report:?}");
        assert_eq!((report.start, report.head, report.records, report.last_seq), ("new", "found", 6, Some(6)));
        assert_eq!(report.last_hash, Some(log.head.hash));
        log.files.reverse();
        log.texts.reverse();
    }
    assert!(verify(&[log.files[0].clone(), log.files[0].clone()], &Checks::default()).is_err());
}

#[test]
fn what_was_packed_is_read_as_it_was_and_named_where_it_is_broken() {
    use std::io::Write;
    let mut log = log("packed");
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("file can be written");
    // As `cat` makes one of two.
    let mut packed = Vec::new();
    for line in log.texts[0].split_inclusive('\n') {
        let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::default());
        encoder.write_all(line.as_bytes()).and_then(|()| encoder.finish().map(drop)).expect("memory has room");
    }
    log.files[0] = log.files[0].with_extension("00000000000000000001.gz");
    write(&log.files[0], &packed);
    write(&log.files[1], log.texts[1].as_bytes());
    let checks = Checks { head: Some(log.head.clone()), after: After::Start };
    let report = verify(&log.files, &checks).expect("files can be read");
    assert!(report.intact && report.records == 6, "{report:?}");
    let other = log.files[0].with_extension("").with_extension("00000000000000000002.gz");
    std::fs::rename(&log.files[0], &other).expect("file can be renamed");
    log.files[0] = other;
    assert_eq!(words(&verify(&log.files, &checks).expect("files can be read")), ["wrong_name"]);
    for broken in [&packed[..packed.len() - 9], log.texts[0].as_bytes()] {
        write(&log.files[0], broken);
        let error = verify(&log.files, &checks).expect_err("it can't be unpacked").to_string();
        assert!(error.contains("00002.gz: "), "{error}");
    }
}

#[test]
fn every_bit_that_is_changed_is_noticed_at_its_line() {
    let log = log("bits");
    for index in 0..2 {
        let text = log.texts[index].clone().into_bytes();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1 << (at % 8);
            let report = log.with(index, &changed, false);
            let line = 1 + text[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            let named = |problem: &Problem| problem.file.ends_with(["1", "l"][index]) && problem.line == Some(line);
            assert!(report.problems.iter().any(named), "byte {at} of line {line}: {report:?}");
        }
    }
}

#[test]
fn every_line_that_is_removed_repeated_or_exchanged_is_noticed() {
    let log = log("lines");
    for index in 0..2 {
        let lines: Vec<&str> = log.texts[index].split_inclusive('\n').collect();
        for at in 0..lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            assert!(!log.with(index, removed.concat().as_bytes(), true).intact, "removed {at}");
            let mut twice = lines.clone();
            twice.insert(at, lines[at]);
            assert_eq!(words(&log.with(index, twice.concat().as_bytes(), true)), ["duplicate"], "repeated {at}");
            for other in 0..at {
                let mut exchanged = lines.clone();
                exchanged.swap(at, other);
                assert!(!log.with(index, exchanged.concat().as_bytes(), true).intact, "exchanged {at} and {other}");
                let mut moved = lines.clone();
                moved.insert(other, lines[at]);
                assert!(!log.with(index, moved.concat().as_bytes(), true).intact, "{at} again at {other}");
            }
        }
    }
}

#[test]
fn every_cut_of_the_tail_is_noticed_with_the_head() {
    let log = log("tail");
    let text = log.texts[1].as_bytes();
    for cut in 0..text.len() {
        let report = log.with(1, &text[..cut], true);
        assert!(words(&report).contains(&"tail_missing"), "{cut}: {report:?}");
        let report = log.with(1, &text[..cut], false);
        let at_a_line = cut == 0 || text[cut - 1] == b'\n';
        assert_eq!((report.intact, report.head), (at_a_line, "not_checked"), "{cut}: {report:?}");
        // Of a file that is not the last one each cut is noticed.
        let first = log.texts[0].as_bytes();
        assert!(!log.with(0, &first[..cut.min(first.len() - 1)], false).intact, "{cut}");
    }
}

#[test]
fn what_is_newer_than_the_head_is_well_and_may_be_unfinished() {
    let log = log("newer");
    let (next, hash) = seal(&line(7), Some(log.head.hash));
    let whole = log.texts[1].clone() + &next;
    let report = log.with(1, whole.as_bytes(), true);
    assert!(report.intact && report.last_hash == Some(hash), "{report:?}");
    let report = log.with(1, &whole.as_bytes()[..whole.len() - 1], true);
    assert!(report.intact && report.notes.iter().any(|note| note.problem == "unfinished"), "{report:?}");
}

#[test]
fn a_chain_that_somebody_else_has_made_is_not_the_one_that_was_written() {
    let log = log("other");
    let (other, _) = seal(&line(6).replace("\"r\"", "\"x\""), None);
    assert!(!log.with(1, other.as_bytes(), true).intact);
    let mut hash = None;
    let forged: String = (1..=7)
        .map(|seq| {
            let (line, own) = seal(&line(seq).replace("\"r\"", "\"x\""), hash);
            hash = Some(own);
            line
        })
        .collect();
    std::fs::write(&log.files[1], forged).expect("file can be written");
    let head = Some(log.head.clone());
    let report = verify(&log.files[1..], &Checks { head, after: After::Start }).expect("file can be read");
    assert_eq!(words(&report), ["not_the_head"]);
}

#[test]
fn a_beginning_is_checked_against_what_is_said_of_it() {
    let log = log("beginning");
    log.check([log.texts[0].as_bytes(), log.texts[1].as_bytes()], true);
    let first = verify(&log.files[..1], &Checks::default()).expect("file can be read");
    let of = |after| verify(&log.files[1..], &Checks { head: None, after }).expect("file can be read");
    assert_eq!(words(&of(After::Start)), ["start_missing"]);
    assert_eq!(of(After::Any).start, "not_checked");
    assert_eq!(of(After::Hash(first.last_hash.expect("there is one"))).start, "after");
    assert_eq!(words(&of(After::Hash(log.head.hash))), ["start_missing"]);
    // A log that begins with nothing before it, but not with the first record.
    let (line, _) = seal(&line(4), None);
    std::fs::write(&log.files[1], line).expect("file can be written");
    assert_eq!(words(&of(After::Start)), ["start_missing"]);
}
