//! The audit log of all that happened so far is a chain, and what is changed in it is found.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::applied::Applied;
use super::survival::{Hammer, POLICY, unbind_after};
use crate::harness::cgroup::{self, Cgroup};
use crate::harness::control::{ask, metric, metrics};
use crate::harness::policy::{NOTHING, allowing, change};
use crate::harness::records::LOG;
use crate::harness::wait::{ended, limit};
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    the_audit_log_is_whole_and_a_changed_byte_and_a_cut_tail_are_found,
    with_a_full_disk_enforcement_goes_on_and_what_is_lost_is_counted,
    a_daemon_that_starts_on_a_read_only_file_system_counts_what_is_lost_until_it_can_write,
    what_a_slow_disk_holds_up_is_not_told_as_lost,
    a_second_daemon_leaves_the_log_of_the_first_as_it_is,
    while_the_log_takes_nothing_all_else_goes_on_and_nothing_is_missing_after_it,
    a_daemon_whose_log_takes_nothing_ends_all_the_same,
];

/// Exit status of `verify` with these options, and what it says.
fn verify(options: &[&str]) -> Result<(Option<i32>, Value)> {
    let output = Command::new("agent-monitor").args(["verify", "-o", "json"]).args(options).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| format!("verify says: {said}"))?;
    Ok((output.status.code(), report))
}

fn the_audit_log_is_whole_and_a_changed_byte_and_a_cut_tail_are_found(scene: &mut Scene<'_>) -> Outcome {
    let (status, report) = verify(&[])?;
    ensure!(status == Some(0) && report["intact"] == true && report["head"] == "found", "{status:?}: {report}");
    let head = "/var/lib/agent-monitor/head.json";
    let copied_head = scene.path("head.json").to_string_lossy().into_owned();
    fs::copy(head, &copied_head)?;
    let copy = scene.path("copy.jsonl").to_string_lossy().into_owned();
    fs::copy(LOG, &copy)?;
    let options = ["--head", &copied_head, &copy];
    let (status, report) = verify(&options)?;
    ensure!(status == Some(0), "of a copy, {status:?}: {report}");
    let text = fs::read_to_string(&copy)?;
    fs::write(&copy, text.replacen("\"node_name\"", "\"node-name\"", 1))?;
    let (status, report) = verify(&options)?;
    let changed = &report["problems"][0];
    ensure!(status == Some(1) && changed["problem"] == "changed" && changed["line"] == 1, "{status:?}: {report}");
    // All but the last line that the head knows of, and what came after it.
    let noted: Value = serde_json::from_str(&fs::read_to_string(&copied_head)?)?;
    let number = format!("\"seq\":{},", noted["seq"]);
    let before = text.lines().take_while(|line| !line.contains(&number)).map(|line| line.to_owned() + "\n");
    fs::write(Path::new(&copy), before.collect::<String>())?;
    let (status, report) = verify(&options)?;
    ensure!(status == Some(1) && report["problems"][0]["problem"] == "tail_missing", "{status:?}: {report}");
    Ok(())
}

/// A process one of whose threads is stopped, by a cgroup of its own, until this is dropped.
struct Held {
    pid: u32,
    thread: Cgroup,
    _process: Cgroup,
}

impl Held {
    /// Stops the thread with this name.
    fn stop(pid: u32, name: &str) -> Result<Self> {
        let process = Cgroup::make("/scenario-held")?;
        let thread = Cgroup::make("/scenario-held/thread")?;
        let mut held = None;
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = entry?.path();
            if fs::read_to_string(task.join("comm"))?.trim_end() == name {
                held = task.file_name().map(|id| id.to_string_lossy().into_owned());
            }
        }
        let held = held.with_context(|| format!("process {pid} has no thread {name}"))?;
        cgroup::enter(&process.directory(), pid)?;
        let this = Self { pid, thread, _process: process };
        fs::write(this.thread.directory().join("cgroup.type"), "threaded").context("make it one for threads")?;
        fs::write(this.thread.directory().join("cgroup.threads"), held).context("move the thread")?;
        fs::write(this.thread.directory().join("cgroup.freeze"), "1").context("stop the thread")?;
        cgroup::until(&this.thread.directory(), "frozen 1", limit())?;
        Ok(this)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What is left shows in the next scenario, where the daemon does not answer.
        let _ = fs::write(self.thread.directory().join("cgroup.freeze"), "0");
        let _ = cgroup::enter(Path::new(cgroup::MOUNT), self.pid);
    }
}

/// The thread that writes stops for longer than the daemon waits for the next event of an agent that is gone.
fn what_a_slow_disk_holds_up_is_not_told_as_lost(scene: &mut Scene<'_>) -> Outcome {
    const DENIALS: u64 = 20;
    /// Longer than `SETTLE_LIMIT` in the daemon. Nothing tells that this has passed.
    const STOPPED: Duration = Duration::from_secs(8);
    let mut process = scene.process()?;
    let files: Vec<PathBuf> = (0..DENIALS).map(|number| scene.file(&format!("file{number}"), "f")).collect();
    let id = scene.bind(NOTHING)?;
    scene.record(&json!({"type": "agent", "action": "bound"}))?;
    let held = Held::stop(scene.daemon.pid(), "records")?;
    for file in &files {
        process.expect(&step!("open", file, "r"), EACCES, "while the log stands still")?;
    }
    let goes_on = thread::spawn(move || {
        thread::sleep(STOPPED);
        drop(held);
    });
    let start = Instant::now();
    let counts = scene.unbind()?;
    ensure!(start.elapsed() >= STOPPED, "the agent's end was told before its denials were written");
    goes_on.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
    let word = format!("\"{id}\"");
    scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
    scene.records.account(scene.start, &word, &counts, DENIALS)?;
    ensure!(counts["lost"] == 0 && counts["written"] == DENIALS, "something was lost: {counts}");
    Ok(())
}

/// The second one has the log and the state of the first, and all else of its own.
fn a_second_daemon_leaves_the_log_of_the_first_as_it_is(scene: &mut Scene<'_>) -> Outcome {
    const TIMES: usize = 5;
    let process = scene.process()?;
    scene.bind(POLICY)?;
    let hammer = Hammer::start(scene, process)?;
    let config =
        scene.file("second.toml", "socket = \"/run/scenarios/second.sock\"\nmetrics_address = \"127.0.0.1:9479\"\n");
    for _ in 0..TIMES {
        let second = Command::new("agent-monitor").args(["daemon", "--config"]).arg(&config).output()?;
        let said = String::from_utf8_lossy(&second.stderr);
        ensure!(second.status.code() == Some(1), "the second daemon ended with {}: {said}", second.status);
        for word in ["error:", LOG, &format!("pid {}", scene.daemon.pid())] {
            ensure!(said.contains(word), "it does not say {word}: {said}");
        }
    }
    let rounds = hammer.end()?;
    unbind_after(scene, 2 * rounds)?;
    let appended = scene.records.count(scene.start, "\"appended\"", &json!({"type": "loss", "stage": "audit"}))?;
    ensure!(appended == 0, "somebody else wrote into the log {appended} times");
    let (status, report) = verify(&[])?;
    ensure!(status == Some(0) && report["head"] == "found", "{status:?}: {report}");
    Ok(())
}

fn while_the_log_takes_nothing_all_else_goes_on_and_nothing_is_missing_after_it(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let read = step!("open", file, "r");
    let (limited, applied) = ("scenario-limited", Applied("scenario-hung"));
    let mut process = scene.process()?;
    let held = Held::stop(scene.daemon.pid(), "records")?;
    let spec = "files:\n  - {allow: [read], paths: [\"/**\"]}\n";
    let id = scene.bind_as(limited, spec, json!({"ttl_seconds": 2}))?;
    let body = readyz(503)?;
    ensure!(body.contains("takes nothing") && body.contains(LOG), "/readyz does not say why: {body}");
    let (status, answer) = applied.put(&allowing(applied.0, "read", &file))?;
    ensure!(status == 201, "no policy can be applied: {status}: {answer}");
    let agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    ensure!(agent["policy"] == "empty", "its time was over before, and it is not: {agent}");
    process.expect(&read, EACCES, "after its time")?;
    drop(held);
    let expired = json!({"type": "agent", "action": "expired", "policy": {"name": "empty"}});
    scene.record(&expired)?;
    scene.records.wait(scene.start, applied.0, &change(applied.0, "loaded"))?;
    readyz(200)?;
    scene.unbind_after(1)
}

fn a_daemon_whose_log_takes_nothing_ends_all_the_same(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let mut process = scene.process()?;
    scene.bind(NOTHING)?;
    let pid = scene.daemon.pid();
    let held = Held::stop(pid, "records")?;
    process.expect(&step!("open", file, "r"), EACCES, "while the log takes nothing")?;
    scene.daemon.signal(libc::SIGTERM);
    ensure!(ended(i64::from(pid), Instant::now() + limit()), "the daemon does not end");
    let status = scene.daemon.wait()?;
    ensure!(status.success(), "it ended with {status}");
    drop(held);
    process.expect(&step!("open", file, "r"), EACCES, "while no daemon runs")?;
    scene.daemon.start_again(&[])?;
    let counts = scene.unbind()?;
    ensure!(counts["denied"] == 2, "counted are {counts}");
    let (status, report) = verify(&[])?;
    ensure!(status == Some(0), "the log is no chain: {status:?}: {report}");
    Ok(())
}

/// Fills the disk of the log; what was taken is given back at the end.
struct Filler(PathBuf);

impl Filler {
    fn fill() -> Result<Self> {
        let path = Path::new(LOG).with_file_name("filler");
        let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        let filler = Self(path);
        for size in [1 << 20, 1 << 10, 1] {
            let bytes = vec![b'x'; size];
            loop {
                match file.write(&bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Waits until `/readyz` gives this status, and gives what it says then.
fn readyz(wanted: u16) -> Result<String> {
    let deadline = Instant::now() + limit();
    loop {
        let (status, body) = metrics("/readyz")?;
        if status == wanted {
            return Ok(body);
        }
        ensure!(Instant::now() < deadline, "/readyz gives {status} and not {wanted}: {body}");
        // Nothing can be waited for: it looks at itself once a second.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn with_a_full_disk_enforcement_goes_on_and_what_is_lost_is_counted(scene: &mut Scene<'_>) -> Outcome {
    let process = scene.process()?;
    let id = scene.bind(NOTHING)?;
    let files = files(scene);
    let filler = Filler::fill()?;
    loses_these_and_goes_on(scene, process, &id, &files, filler)
}

/// The file system of the log can't be written until this is dropped.
struct ReadOnly;

impl ReadOnly {
    fn remount(how: &str) -> Result<()> {
        let directory = Path::new(LOG).parent().context("the log is in a directory")?;
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(directory).status()?;
        ensure!(status.success(), "{} can't be made {how}", directory.display());
        Ok(())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // What is left shows in the next scenario, which finds no records.
        let _ = Self::remount("rw");
    }
}

fn a_daemon_that_starts_on_a_read_only_file_system_counts_what_is_lost_until_it_can_write(
    scene: &mut Scene<'_>,
) -> Outcome {
    let process = scene.process()?;
    let id = scene.bind(NOTHING)?;
    let files = files(scene);
    scene.record(&json!({"type": "agent", "action": "bound"}))?;
    // While a file is open for writing the kernel makes no file system read-only.
    ensure!(scene.daemon.end()?.success(), "the daemon did not end well");
    ReadOnly::remount("ro")?;
    let read_only = ReadOnly;
    scene.daemon.start_again(&[])?;
    loses_these_and_goes_on(scene, process, &id, &files, read_only)
}

/// More than there is room for in a page that is begun.
const LOST: u64 = 40;

fn files(scene: &Scene<'_>) -> Vec<PathBuf> {
    (0..LOST).map(|number| scene.file(&format!("file{number}"), "f")).collect()
}

/// While `hindrance` is there the log can't be written: these files stay denied, and what is lost of that is counted. After it
/// all is told again, and the log is whole.
fn loses_these_and_goes_on<T>(
    scene: &mut Scene<'_>,
    mut process: Process,
    id: &str,
    files: &[PathBuf],
    hindrance: T,
) -> Outcome {
    for file in files {
        process.expect(&step!("open", file, "r"), EACCES, "while the log can't be written")?;
    }
    let body = readyz(503)?;
    ensure!(body.contains(LOG), "/readyz does not name the log: {body}");
    ensure!(
        metric("agent_monitor_audit_log_failing", &["writing"])? == 1,
        "the metric does not say that writing fails"
    );
    drop(hindrance);
    scene.records.wait(scene.start, "write_failed", &json!({"type": "loss", "stage": "audit"}))?;
    let mut after = scene.process()?;
    let file = scene.file("after", "f");
    after.expect(&step!("open", file, "r"), EACCES, "once the log can be written")?;
    scene.record(&record("file_open", &["read"], json!({"path": file}), "no_rule", None))?;
    let counts = scene.unbind()?;
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    let mut written = 0;
    for record in scene.records.about(scene.start, &format!("\"{id}\"")) {
        written += u64::from(record?["verdict"] == "deny");
    }
    ensure!(count("denied") == LOST + 1 && count("written") == written, "{written} are in the log: {counts}");
    ensure!(count("lost") > 0 && count("lost") + written + count("folded") == LOST + 1, "counted are {counts}");
    // Others may have lost records too, this agent none that is not counted.
    let mut told = 0;
    for record in scene.records.about(scene.start, "write_failed") {
        told += record?["count"].as_u64().unwrap_or(0);
    }
    ensure!(told >= count("lost"), "{told} are told of as lost, and counted are {counts}");
    readyz(200)?;
    let (status, report) = verify(&[])?;
    ensure!(status == Some(0), "what is written is no chain: {status:?}: {report}");
    Ok(())
}
