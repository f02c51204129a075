//! The audit log as a whole: what is written, cut, moved and taken up again, and what `verify` says of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::verify::{Checks, Head, Report, verify};
use super::*;
use crate::record::Record;

/// A directory of its own for a test.
pub(super) fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("agent-monitor-{}-audit-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).expect("temporary directory can be made");
    path
}

/// A record's line without its chain.
pub(super) fn line(seq: u64) -> String {
    let head = "\"type\":\"loss\",\"node_name\":\"n\",\"stage\":\"s\",\"reason\":\"r\",\"count\":1,\"agent\":null";
    format!("{{\"time\":\"2026-11-22T10:00:00Z\",\"seq\":{seq},{head},\"after_seq\":1,\"before_seq\":2}}\n")
}

fn options(directory: &Path) -> LogOptions {
    let (path, head) = (directory.join("audit.jsonl"), Some(directory.join("state/head.json")));
    LogOptions { path, head, keeping: Audit::default() }
}

/// Writes records as the stream does: what was found first, then so many.
fn write_records(log: &mut AuditLog, count: u64) -> Vec<Reason> {
    log.prepare();
    let findings = log.take_findings();
    let mut lines = Vec::new();
    let mut seq = log.seq();
    for finding in &findings {
        seq += 1;
        lines.push((seq, Record { seq: Some(seq), ..finding.record(&"n".into()) }.to_line()));
    }
    lines.extend((seq + 1..=seq + count).map(|seq| (seq, line(seq))));
    let (written, result) = log.add(&lines);
    result.expect("log can be written");
    assert_eq!(written.len(), lines.len());
    findings.iter().map(|finding| finding.reason).collect()
}

/// What `verify` says of the log with its rotated files and its head.
fn verified(directory: &Path) -> Report {
    let options = options(directory);
    let head = options.head.as_deref().map(|path| Head::read(path).expect("head can be read"));
    let mut files: Vec<PathBuf> =
        rotated(&options.path).expect("directory is there").into_iter().map(|(_, path)| path).collect();
    files.push(options.path);
    verify(&files, &Checks { head, ..Checks::default() }).expect("log can be read")
}

fn problems(report: &Report) -> Vec<&'static str> {
    report.problems.iter().map(|problem| problem.problem).collect()
}

#[test]
fn a_log_is_private_and_goes_on_over_restarts() {
    let path = directory("restart");
    for _ in 0..3 {
        let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
        assert_eq!(write_records(&mut log, 2), []);
    }
    let mode = |name: &str| std::fs::metadata(path.join(name)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("audit.jsonl"), mode("state"), mode("state/head.json")), (0o600, 0o700, 0o600));
    let report = verified(&path);
    assert!(report.intact, "{report:?}");
    assert_eq!((report.records, report.last_seq, report.start, report.head), (6, Some(6), "new", "found"));
}

#[test]
fn a_log_that_somebody_else_writes_is_refused_and_left_as_it_is() {
    let path = directory("second");
    for (name, options) in [("head", options(&path)), ("none", LogOptions { head: None, ..options(&path) })] {
        let mut log = AuditLog::open(&options).expect("log can be opened");
        write_records(&mut log, 1);
        let text = || std::fs::read(&options.path).expect("log is there");
        let before = text();
        let refused = AuditLog::open(&options).expect_err("it is written already").to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{name}: {refused}");
        // Also while the log has no name or another one.
        std::fs::rename(&options.path, path.join(name)).expect("log can be renamed");
        assert_eq!(AuditLog::open(&options).is_err(), name == "head");
        assert_eq!(options.path.exists(), name != "head");
        std::fs::rename(path.join(name), &options.path).expect("log can be renamed");
        assert!(text() == before);
        drop(log);
        AuditLog::open(&options).expect("nobody writes it any more");
    }
}

#[test]
fn a_line_that_was_cut_off_by_the_end_of_the_writer_is_told_and_is_no_tampering() {
    let path = directory("cut-off");
    let log_path = path.join("audit.jsonl");
    for (noted, more) in [(true, vec![]), (false, vec![Reason::HeadMissing])] {
        let _ = std::fs::remove_file(&log_path);
        let _ = std::fs::remove_dir_all(path.join("state"));
        let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
        write_records(&mut log, 2);
        let (line, _) = seal(&line(3), log.hash);
        let (text, head) = (std::fs::read(&log_path).expect("log is there"), path.join("state/head.json"));
        let noted_then = std::fs::read(&head).expect("head is there");
        drop(log);
        for cut in [1, 30, line.len() - 2] {
            std::fs::write(&log_path, [&text, &line.as_bytes()[..cut]].concat()).expect("log can be written");
            std::fs::write(&head, &noted_then).expect("head can be written");
            if !noted {
                std::fs::remove_file(&head).expect("head can be removed");
            }
            let mut next = AuditLog::open(&options(&path)).expect("log can be opened");
            assert_eq!(write_records(&mut next, 1), [vec![Reason::LineCutOff], more.clone()].concat());
            let report = verified(&path);
            assert!(report.intact, "{report:?}");
            assert_eq!(report.notes.first().map(|note| note.problem), Some("cut_off"));
        }
    }
}

#[test]
fn a_line_that_a_full_disk_cut_off_is_taken_back_or_told() {
    let path = directory("torn");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 1);
    let whole = log.whole;
    let (line, _) = seal(&line(2), log.hash);
    for (cut, kept) in [(20, false), (20, true), (line.len() - 1, true)] {
        let (torn, _) = line.split_at(cut);
        log.file.write_all(torn.as_bytes()).expect("log can be written");
        log.length += cut as u64;
        log.torn = Some(Torn { end: end_of(torn.as_bytes()), found: false });
        if kept {
            // As where it can't be taken back.
            log.whole = u64::MAX;
        }
        assert_eq!(write_records(&mut log, 1), if kept { vec![Reason::LineCutOff] } else { vec![] });
        let report = verified(&path);
        assert!(report.intact, "{report:?}");
    }
    assert!(log.whole > whole);
}

#[test]
fn a_log_that_was_changed_while_nobody_wrote_is_told_in_a_new_chain() {
    let path = directory("changed");
    let log_path = path.join("audit.jsonl");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 3);
    let text = std::fs::read_to_string(&log_path).expect("log is text");
    let head = std::fs::read(path.join("state/head.json")).expect("head is there");
    drop(log);
    let first_two: String = text.lines().take(2).map(|line| line.to_owned() + "\n").collect();
    for (changed, reason) in [
        (text.replace("\"seq\":3", "\"seq\":9"), Reason::ChainBroken),
        (first_two, Reason::TailMissing),
        (String::new(), Reason::TailMissing),
        (line(1), Reason::TailMissing),
    ] {
        std::fs::write(&log_path, changed).expect("log can be written");
        std::fs::write(path.join("state/head.json"), &head).expect("head can be written");
        let mut next = AuditLog::open(&options(&path)).expect("log can be opened");
        let last = next.seq();
        assert_eq!(write_records(&mut next, 1), [reason]);
        assert!(last >= 3);
        let report = verified(&path);
        assert!(problems(&report).contains(&"chain_starts_anew"), "{report:?}");
        assert_eq!((report.last_seq, report.head), (Some(last + 2), "found"));
    }
}

#[test]
fn a_log_that_is_cut_removed_or_written_by_others_meanwhile_goes_on_and_says_so() {
    let path = directory("meanwhile");
    let log_path = path.join("audit.jsonl");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 2);
    // What logrotate's copytruncate does.
    std::fs::copy(&log_path, path.join("copy")).expect("log can be copied");
    std::fs::File::options().write(true).open(&log_path).expect("log is there").set_len(0).expect("log can be cut");
    assert_eq!(write_records(&mut log, 1), [Reason::Truncated]);
    assert!(log.troubles().truncated);
    assert_eq!(problems(&verified(&path)), ["start_missing"]);
    let both = verify(&[log_path.clone(), path.join("copy")], &Checks::default()).expect("logs can be read");
    assert!(both.intact, "{both:?}");
    log.reopen().expect("log can be opened again");
    assert!(!log.troubles().truncated);
    // In the middle of a line.
    let file = std::fs::File::options().write(true).open(&log_path).expect("log is there");
    file.set_len(50).expect("log can be cut");
    assert_eq!(write_records(&mut log, 1), [Reason::Truncated]);
    assert_eq!(problems(&verified(&path)), ["no_record", "start_missing"]);
    let mut other = std::fs::File::options().append(true).open(&log_path).expect("log is there");
    other.write_all(b"not ours").expect("log can be written");
    assert_eq!(write_records(&mut log, 1), [Reason::Appended]);
    assert_eq!(problems(&verified(&path)), ["no_record", "no_record", "start_missing"]);
    std::fs::remove_file(&log_path).expect("log can be removed");
    assert_eq!(write_records(&mut log, 1), [Reason::Deleted]);
    assert_eq!(problems(&verified(&path)), ["start_missing"]);
}

#[test]
fn a_log_that_was_renamed_goes_on_in_a_new_file() {
    let path = directory("renamed");
    let log_path = path.join("audit.jsonl");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 2);
    std::fs::rename(&log_path, path.join("audit.jsonl.1")).expect("log can be renamed");
    assert_eq!(write_records(&mut log, 1), []);
    log.reopen().expect("log can be opened again");
    assert_eq!(write_records(&mut log, 1), []);
    let files = [path.join("audit.jsonl.1"), log_path.clone()];
    let report = verify(&files, &Checks::default()).expect("logs can be read");
    assert!(report.intact && report.records == 4, "{report:?}");
    // The same while no daemon runs, and without any record in between.
    drop(log);
    std::fs::rename(&log_path, path.join("audit.jsonl.2")).expect("log can be renamed");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    assert_eq!(write_records(&mut log, 1), []);
    let files = [path.join("audit.jsonl.2"), path.join("audit.jsonl.1"), log_path];
    let report = verify(&files, &Checks::default()).expect("logs can be read");
    assert!(report.intact && report.records == 5, "{report:?}");
}

#[test]
fn a_log_is_rotated_by_size_and_its_oldest_files_are_removed_and_named() {
    let path = directory("rotate");
    let keeping = Audit { max_bytes: 1000, keep: 2, ..Audit::default() };
    let rotating = LogOptions { keeping, ..options(&path) };
    let mut log = AuditLog::open(&rotating).expect("log can be opened");
    std::fs::set_permissions(&rotating.path, PermissionsExt::from_mode(0o640)).expect("mode can be set");
    let mut found = Vec::new();
    for round in 0..30 {
        found.extend(write_records(&mut log, 1));
        if round == 20 {
            drop(log);
            log = AuditLog::open(&rotating).expect("log can be opened");
        }
    }
    assert!(found.len() > 3 && found.iter().all(|reason| *reason == Reason::Expired), "{found:?}");
    let files = rotated(&rotating.path).expect("directory is there");
    assert_eq!(files.len(), 2);
    let report = verified(&path);
    assert!(report.intact, "{report:?}");
    assert_eq!((report.start, report.head, report.files.len()), ("expired", "found", 3));
    let mode = std::fs::metadata(&rotating.path).expect("log is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "who could read the log still can");
    // Somebody else removes one more, or exchanges two.
    let (oldest, next) = (&files[0].1, &files[1].1);
    let aside = path.join("aside");
    std::fs::rename(oldest, &aside).expect("file can be renamed");
    assert_eq!(problems(&verified(&path)), ["start_missing"]);
    std::fs::rename(next, oldest).expect("file can be renamed");
    std::fs::rename(&aside, next).expect("file can be renamed");
    assert_eq!(problems(&verified(&path)), ["wrong_name", "wrong_name"]);
}

#[test]
fn a_log_that_is_rotated_while_it_is_verified_is_intact() {
    let path = directory("verified");
    let keeping = Audit { max_bytes: 20_000, keep: 3, fsync: Fsync::Never, ..Audit::default() };
    let rotating = LogOptions { keeping, ..options(&path) };
    let mut log = AuditLog::open(&rotating).expect("log can be opened");
    write_records(&mut log, 1);
    // So many at once that it is rotated, and not so often that the head's file is removed before it is opened.
    let (begin, begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            for () in begun {
                (0..100).for_each(|_| drop(write_records(&mut log, 1)));
                end.send(()).expect("it is waited for");
            }
        });
        for _ in 0..30 {
            let head = options(&path).head.map(|path| Head::read(&path).expect("head can be read"));
            begin.send(()).expect("the thread waits");
            let files = open_files(&rotating.path).expect("files can be opened");
            let report = verify::verify_open(&files, &Checks { head, ..Checks::default() }).expect("log can be read");
            assert!(report.intact && files.len() <= 5, "{}: {report:?}", files.len());
            ended.recv().expect("the thread writes");
        }
        drop(begin);
        writes.join().expect("the thread ends");
    });
    assert!(log.seq() > 3000, "it was not rotated");
}

#[test]
fn a_rotation_that_fails_half_way_leaves_the_log_under_its_name() {
    let path = directory("half-way");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 2);
    let (log_path, name) = (path.join("audit.jsonl"), rotated::name(log.place.name(), 1));
    let refused = |_: &AuditLog, _: &File| Err(io::Error::other("no"));
    assert_eq!(log.replace(&name, refused).expect_err("it fails").to_string(), "no");
    assert!(!path.join(&name).exists());
    write_records(&mut log, 1);
    assert_eq!(verified(&path).records, 3);
    // Of somebody else's file nothing is lost, and what stands in the way is said.
    let taken = |_: &AuditLog, _: &File| {
        std::fs::write(&log_path, "x\n").expect("file can be written");
        Err(io::Error::other("no"))
    };
    let error = log.replace(&name, taken).expect_err("it fails").to_string();
    assert!(error.starts_with("no; ") && error.contains("its name back"), "{error}");
    assert_eq!(std::fs::read_to_string(&log_path).expect("file is there"), "x\n");
    log.replace(&name, AuditLog::same_readers).expect_err("the name is taken");
    std::fs::remove_file(&log_path).expect("file can be removed");
    log.reopen().expect("log can be opened again");
    write_records(&mut log, 1);
    assert!(verified(&path).intact);
}

#[test]
fn a_log_is_rotated_by_age_and_never_over_another_file() {
    let path = directory("age");
    let aged = LogOptions { keeping: Audit { max_age_seconds: 3600, ..Audit::default() }, ..options(&path) };
    let mut log = AuditLog::open(&aged).expect("log can be opened");
    write_records(&mut log, 1);
    // The record's time is long ago, which counts once the file is opened again.
    write_records(&mut log, 1);
    assert_eq!(rotated(&aged.path).expect("directory is there"), []);
    drop(log);
    let mut log = AuditLog::open(&aged).expect("log can be opened");
    let taken = path.join("audit.jsonl.00000000000000000001");
    std::fs::write(&taken, "").expect("file can be made");
    write_records(&mut log, 1);
    assert!(log.troubles().rotating.is_some());
    std::fs::remove_file(&taken).expect("file can be removed");
    write_records(&mut log, 1);
    assert_eq!((log.troubles(), rotated(&aged.path).expect("directory is there").len()), (&Troubles::default(), 1));
    assert!(verified(&path).intact);
}

#[test]
fn with_always_what_cannot_be_synced_is_not_written() {
    // A terminal, a pipe or /dev/null can't be synced.
    let null = File::options().read(true).write(true).open("/dev/null").expect("/dev/null is there");
    for (fsync, count) in [(Fsync::Never, 1), (Fsync::Always, 0)] {
        let mut log = AuditLog::of(null.try_clone().expect("file can be shared"));
        log.keeping.fsync = fsync;
        let (written, result) = log.add(&[(1, line(1))]);
        assert_eq!((written.len(), result.is_ok()), (count, count == 1));
        assert_eq!(log.troubles().syncing.is_some(), count == 0);
    }
    let path = directory("always");
    let always = LogOptions { keeping: Audit { fsync: Fsync::Always, ..Audit::default() }, ..options(&path) };
    let mut log = AuditLog::open(&always).expect("log can be opened");
    write_records(&mut log, 1);
    assert!(!log.unsynced && log.troubles().syncing.is_none());
}

#[test]
fn what_could_not_be_synced_once_stays_a_reason_until_another_file_goes_on() {
    let path = directory("once");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 1);
    let null = File::options().read(true).write(true).open("/dev/null").expect("/dev/null is there");
    let good = std::mem::replace(&mut log.file, null);
    log.sync();
    assert!(log.troubles().syncing.is_some() && log.unsynced);
    log.file = good;
    log.sync();
    assert!(log.troubles().syncing.is_some() && !log.unsynced, "the kernel says that all is well");
    std::fs::rename(path.join("audit.jsonl"), path.join("audit.jsonl.1")).expect("log can be renamed");
    log.reopen().expect("log can be opened again");
    assert_eq!(log.troubles().syncing, None);
}

#[test]
fn lines_that_have_no_room_are_not_in_the_chain() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full is there");
    let path = directory("full");
    let mut log = AuditLog::open(&options(&path)).expect("log can be opened");
    write_records(&mut log, 1);
    let (good, hash) = (std::mem::replace(&mut log.file, full), log.hash);
    let (written, result) = log.add(&[(2, line(2)), (3, line(3))]);
    assert_eq!((written.len(), result.map_err(|error| error.kind())), (0, Err(io::ErrorKind::StorageFull)));
    assert_eq!((log.seq, log.hash), (1, hash));
    log.file = good;
    write_records(&mut log, 1);
    let report = verified(&path);
    assert!(report.intact && report.last_seq == Some(2), "{report:?}");
}

/// Speed of the chain: `cargo test --release -p agent-monitor -- --ignored --nocapture lines_a_second`.
#[test]
#[ignore = "measures; only a release build says anything"]
fn the_chain_writes_a_hundred_thousand_lines_a_second() {
    let path = directory("speed");
    let keeping = Audit { fsync: Fsync::Never, ..Audit::default() };
    let mut log = AuditLog::open(&LogOptions { keeping, ..options(&path) }).expect("log can be opened");
    let long = |seq: u64| line(seq).replace("\"r\"", &format!("\"{}\"", "r".repeat(700)));
    let start = Instant::now();
    let count = 500_000;
    for batch in 0..count / 100 {
        let lines: Vec<(u64, String)> = (batch * 100 + 1..=batch * 100 + 100).map(|seq| (seq, long(seq))).collect();
        log.prepare();
        log.add(&lines).1.expect("log can be written");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} lines a second of {} bytes", count as f64 / seconds, log.whole / count);
    let start = Instant::now();
    assert!(verified(&path).intact);
    println!("{:.0} lines a second verified", count as f64 / start.elapsed().as_secs_f64());
    assert!(count as f64 / seconds > 100_000.0);
    std::fs::remove_dir_all(path).expect("directory can be removed");
}
