//! The order of records, what becomes of those that have no room, and what followers get.

use super::super::{Options, Stream};
use super::*;
use crate::config::Audit;
use crate::record::MonitorChange;
use crate::sink::audit::LogOptions;
use crate::sink::audit::verify::{Checks, Head, verify};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("agent-monitor-{}-writer-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).expect("temporary directory can be made");
    path
}

fn record(text: &str) -> Record {
    let change = MonitorChange {
        action: text.to_owned(),
        version: String::new(),
        enforcement: String::new(),
        messages: Vec::new(),
    };
    Record { time: clock::now(), seq: None, node_name: "n".into(), body: Body::Monitor(change) }
}

fn seen() -> (Tap, Arc<Mutex<Vec<Record>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    (Box::new(move |record: &Record| into.lock().expect("test lock").push(record.clone())), seen)
}

/// A writer whose last record has this number.
fn writer(log: Option<AuditLog>, seq: u64) -> Writer {
    let (published, progressed) = (broadcast::channel(8).0, watch::channel(0).0);
    let (node_name, totals) = ("n".into(), Arc::default());
    Writer { log, tap: None, node_name, published, totals, progressed, seq, untold: Vec::new(), missing: None }
}

#[tokio::test]
async fn records_are_numbered_without_gaps_in_the_order_of_writing() {
    let (tap, seen) = seen();
    let (stream, thread) = Stream::start(Options { tap: Some(tap), ..Options::default() }).expect("stream starts");
    let mut follower = stream.subscribe();
    stream.write(vec![record("a").into(), record("b").into()]).await;
    stream.write(vec![record("c").into()]).await;
    stream.flush().await;
    let numbers: Vec<_> = seen.lock().expect("test lock").iter().map(|record| record.seq).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    assert!(follower.recv().await.expect("followed").line().contains("\"seq\":1,"));
    drop(stream);
    thread.join().expect("thread ends");
}

#[tokio::test]
async fn who_wrote_nothing_leaves_what_is_wrong_with_the_log_for_the_next_one_to_tell() {
    let path = directory("nothing");
    let (log_path, head) = (path.join("audit.jsonl"), path.join("state/head.json"));
    std::fs::write(&log_path, "no chain\n").expect("file can be written");
    let log = LogOptions { path: log_path.clone(), head: Some(head.clone()), keeping: Audit::default() };
    for (count, lines) in [(0, 1), (1, 4)] {
        let options = Options { log: Some(log.clone()), ..Options::default() };
        let (stream, thread) = Stream::start(options).expect("stream starts");
        assert!(stream.outbox().between(Box::new(drop)));
        if count > 0 {
            stream.write(vec![record("a").into()]).await;
        }
        stream.flush().await;
        drop(stream);
        thread.join().expect("thread ends");
        let text = std::fs::read_to_string(&log_path).expect("log is text");
        assert_eq!((text.lines().count(), head.exists()), (lines, count > 0), "{text}");
    }
    std::fs::remove_dir_all(path).expect("directory can be removed");
}

#[test]
fn what_the_log_could_not_take_is_named_by_the_next_record() {
    let (tap, seen) = seen();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
    let path = std::env::temp_dir().join(format!("agent-monitor-{}-full", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let options = LogOptions { path: path.clone(), head: None, keeping: Audit::default() };
    let good = AuditLog::open(&options).expect("log can be made");
    let mut writer = Writer { tap: Some(tap), ..writer(Some(AuditLog::of(full)), 10) };
    writer.write(vec![record("a").into(), record("b").into()]);
    writer.write(vec![record("c").into()]);
    writer.write(Vec::new());
    let failing = writer.totals.failing().reasons(Path::new("/log"));
    assert_eq!(failing, ["the audit log /log can't be written: No space left on device (os error 28)"]);
    writer.log = Some(good);
    writer.write(vec![record("d").into()]);
    assert_eq!(writer.totals.failing(), Default::default());
    let totals = (&writer.totals.audit_written, &writer.totals.audit_lost);
    assert_eq!((totals.0.load(Ordering::Relaxed), totals.1.load(Ordering::Relaxed)), (2, 3));
    let text = std::fs::read_to_string(&path).expect("log is text");
    let records: Vec<_> = text.lines().map(|line| Record::parse(line).expect("line is a record")).collect();
    let Some(Body::Loss(loss)) = records.first().map(|record| &record.body) else { panic!("{text}") };
    assert_eq!((loss.count, loss.after_seq, loss.before_seq), (3, Some(10), Some(15)));
    assert_eq!(records.first().and_then(|record| record.seq), Some(15));
    // Three lost, a loss record that a follower saw and the log did not, and the two that are in the log.
    assert_eq!(seen.lock().expect("test lock").len(), 6);
    let _ = std::fs::remove_file(path);
}

#[tokio::test]
async fn followers_get_the_bytes_of_the_log_and_no_hash_without_one() {
    let path = directory("followers").join("audit.jsonl");
    for log in [Some(path.clone()), None] {
        let log = log.map(|path| LogOptions { path, head: None, keeping: Audit::default() });
        let sealed = log.is_some();
        let (stream, thread) = Stream::start(Options { log, ..Options::default() }).expect("stream starts");
        let mut follower = stream.subscribe();
        stream.write(vec![record("a").into(), record("b").into()]).await;
        stream.flush().await;
        let mut followed = String::new();
        for _ in 0..2 {
            followed.push_str(follower.recv().await.expect("followed").line());
        }
        assert_eq!(followed == std::fs::read_to_string(&path).expect("log is text"), sealed);
        assert_eq!(followed.contains("\"hash\""), sealed);
        drop(stream);
        thread.join().expect("thread ends");
    }
}

#[test]
fn what_is_found_is_told_in_its_order_until_it_is_in_the_log() {
    let path = directory("untold").join("audit.jsonl");
    std::fs::write(&path, "no chain\nand torn").expect("file can be written");
    let options = LogOptions { path: path.clone(), head: None, keeping: Audit::default() };
    let log = AuditLog::open(&options).expect("log can be opened");
    let mut writer = writer(Some(log), 0);
    writer.write(vec![record("a").into()]);
    let text = std::fs::read_to_string(&path).expect("log is text");
    let lines: Vec<&str> = text.lines().skip(2).collect();
    let told: Vec<String> = lines
        .iter()
        .filter_map(|line| match Record::parse(line).expect("line is a record").body {
            Body::Loss(loss) => Some(loss.reason),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["chain_broken", "line_cut_off"]);
    assert!(lines[0].contains("\"prev\":null,") && !lines[1].contains("\"prev\":null,"));
    assert!(writer.untold.is_empty());
    let found = writer.totals.found.counts().filter(|(_, count)| *count == 1);
    assert_eq!(found.count(), 2);
    // What can't be told stays, and is not lost; the record behind it is.
    writer.untold = vec![finding()];
    writer.note(3, 0, 2, 1);
    writer.seq = 5;
    assert_eq!((writer.untold.len(), writer.missing.map(|missing| missing.2)), (1, Some(1)));
}

fn finding() -> Finding {
    Finding {
        reason: Reason::Truncated,
        file: "audit.jsonl".to_owned(),
        after_seq: None,
        before_seq: None,
        last_hash: None,
        detail: String::new(),
    }
}

/// `unshare -m sh -c 'mount -t tmpfs -o size=256k none /mnt; TMPDIR=/mnt cargo test -- --ignored full_disk'`
#[test]
#[ignore = "needs a file system of less than a MiB for temporary files"]
fn a_full_disk_loses_records_that_are_named_and_the_chain_goes_on() {
    let path = directory("disk");
    let disk = rustix::fs::statvfs(&path).expect("file system tells its size");
    assert!(disk.f_blocks * disk.f_frsize < 1 << 20, "TMPDIR is no small file system");
    let ballast = path.join("ballast");
    std::fs::write(&ballast, vec![0; 64 << 10]).expect("there is room at first");
    let (log_path, head) = (path.join("audit.jsonl"), path.join("head.json"));
    let options = LogOptions { path: log_path.clone(), head: Some(head.clone()), keeping: Audit::default() };
    let mut writer = writer(Some(AuditLog::open(&options).expect("log can be made")), 0);
    for round in 0..3 {
        while writer.totals.failing().writing.is_none() {
            let text = "x".repeat(1000 + round);
            writer.write((0..10).map(|_| record(&text).into()).collect());
        }
        writer.write(vec![record("lost").into()]);
        let room = std::fs::metadata(&ballast).expect("it is there").len().saturating_sub(20 << 10);
        let file = std::fs::File::options().write(true).open(&ballast).expect("it is there");
        file.set_len(room).expect("it can be made smaller");
        writer.write(Vec::new());
        assert_eq!((writer.missing, writer.totals.failing().writing), (None, None));
    }
    let checks = Checks { head: Some(Head::read(&head).expect("head is there")), ..Checks::default() };
    let report = verify(&[log_path], &checks).expect("log can be read");
    assert!(report.intact, "{report:?}");
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(report.records, load(&writer.totals.audit_written));
    println!("{} records, {} lost", report.records, load(&writer.totals.audit_lost));
    std::fs::remove_dir_all(path).expect("directory can be removed");
}

#[test]
fn of_a_batch_that_fits_in_part_the_rest_is_named() {
    let mut writer = writer(None, 15);
    writer.note(10, 2, 5, 0);
    assert_eq!(writer.missing, Some((13, 15, 3)));
    // The loss record alone is tried again, in vain.
    writer.seq = 16;
    writer.note(15, 0, 1, 1);
    assert_eq!(writer.missing, Some((13, 15, 3)));
    // It fits, and of two that come with it one does not.
    writer.seq = 18;
    writer.note(15, 2, 3, 1);
    assert_eq!(writer.missing, Some((18, 18, 1)));
    writer.seq = 19;
    writer.note(18, 1, 1, 1);
    assert_eq!(writer.missing, None);
}
