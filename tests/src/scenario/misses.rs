//! Programs that the kernel skips. A real miss can't be forced: it takes a task that is preempted inside a program, which the
//! kernels here do not do. So the numbers are looked at on the real kernel, where they are 0, and what is made of one that
//! grows is shown with a `/proc` that says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::control::{ask, metric, metrics};
use crate::harness::daemon::{Daemon, PLACE, uninstall};
use crate::harness::records::Records;
use crate::harness::{Outcome, Scenario, Scene, policy};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    every_loaded_program_says_that_it_was_not_skipped,
];

/// Those that must have no daemon. The one that starts a daemon of its own leaves its socket behind where it fails.
pub const ALONE: &[Scenario] = scenarios![Alone:
    run_without_a_daemon_says_that_programs_were_skipped,
    a_daemon_whose_program_was_skipped_is_degraded,
];

const METRIC: &str = "agent_monitor_program_recursion_misses_total";
/// More descriptors than the monitor has.
const DESCRIPTORS: u32 = 1024;

fn hooks(status: &Value) -> anyhow::Result<&Vec<Value>> {
    status["hooks"].as_array().context("the status tells of hooks")
}

fn every_loaded_program_says_that_it_was_not_skipped(_scene: &mut Scene<'_>) -> Outcome {
    let status = ask("GET", "/v1/status", &Value::Null)?;
    let (_, text) = metrics("/metrics")?;
    let mut loaded = 0;
    for hook in hooks(&status)? {
        let name = hook["name"].as_str().context("a hook has a name")?;
        let is_loaded = ["attached", "on-request"].contains(&hook["state"].as_str().unwrap_or_default());
        let expected = if is_loaded { json!(0) } else { Value::Null };
        ensure!(hook.get("recursion_misses") == Some(&expected), "the status says of {name}: {hook}");
        let line = format!("{METRIC}{{hook=\"{name}\"}} 0");
        ensure!(text.lines().any(|found| found == line) == is_loaded, "the metrics say otherwise than {hook}");
        loaded += u32::from(is_loaded);
    }
    ensure!(loaded > 0, "no hook is loaded: {status}");
    Ok(())
}

/// A `/proc` in which each descriptor of each process says the same of its program; gone at the end, as its settings.
struct Told {
    place: String,
}

impl Told {
    fn new(name: &str, misses: u32) -> anyhow::Result<Self> {
        let told = Self { place: format!("{PLACE}/{name}") };
        fs::create_dir_all(format!("{}/proc/self/fdinfo", told.place))?;
        (0..DESCRIPTORS).try_for_each(|descriptor| told.tell(descriptor, misses))?;
        let settings = format!(
            "audit_log = \"{0}/audit.jsonl\"\n[roots]\nproc = \"{0}/proc\"\ncgroup = \"/sys/fs/cgroup\"\n",
            told.place
        );
        fs::write(told.settings(), settings)?;
        Ok(told)
    }

    fn settings(&self) -> String {
        format!("{}/config.toml", self.place)
    }

    fn tell(&self, descriptor: u32, misses: u32) -> Outcome {
        // Whole from the first moment that it can be seen.
        let hidden = format!("{}/hidden", self.place);
        fs::write(&hidden, format!("prog_type:\t29\nrecursion_misses:\t{misses}\n"))?;
        Ok(fs::rename(hidden, format!("{}/proc/self/fdinfo/{descriptor}", self.place))?)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// The first descriptor of a process that is a program's, and whose number of misses the kernel tells.
fn program_of(pid: u32) -> anyhow::Result<u32> {
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory)?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if text.contains("prog_type:") && text.contains("recursion_misses:\t0\n") {
            return entry.file_name().to_string_lossy().parse().context("a descriptor is a number");
        }
    }
    anyhow::bail!("no program is in {directory}")
}

fn a_daemon_whose_program_was_skipped_is_degraded() -> Outcome {
    let told = Told::new("misses", 0)?;
    let daemon = Daemon::start(&["--config", &told.settings()])?;
    let mut records = Records::open(Path::new(&format!("{}/audit.jsonl", told.place)))?;
    ensure!(metrics("/readyz")?.0 == 200, "it is not ready before anything was skipped");
    told.tell(program_of(daemon.pid())?, 3)?;
    let record =
        records.wait(0, "degraded", &json!({"type": "monitor", "action": "degraded", "enforcement": "full"}))?;
    let status = ask("GET", "/v1/status", &Value::Null)?;
    let skipped: Vec<&Value> = hooks(&status)?.iter().filter(|hook| hook["recursion_misses"] == 3).collect();
    let [hook] = skipped.as_slice() else { anyhow::bail!("it was one program: {skipped:?}") };
    let name = hook["name"].as_str().context("a hook has a name")?;
    let reason = format!("hook {name}: the kernel skipped its program 3 times");
    let (code, body) = metrics("/readyz")?;
    ensure!(code == 503 && body.contains(&reason), "it says that it is ready: {code} {body}");
    for said in [&record["messages"], &status["reasons"]] {
        ensure!(said.to_string().contains(&reason), "{reason:?} is not in {said}");
    }
    ensure!(status["ready"] == false, "the status is ready: {status}");
    ensure!(metric(METRIC, &[&format!("hook=\"{name}\"")])? == 3 && metric(METRIC, &[])? == 3, "the metrics differ");
    let state = |state: &str| metric("agent_monitor_enforcement_state", &[&format!("state=\"{state}\"")]);
    ensure!((state("degraded")?, state("full")?) == (1, 0), "the state of enforcement is another one");
    let ended = daemon.stop()?;
    ensure!(ended.success(), "the daemon ended with {ended}");
    uninstall().map(drop)
}

fn run_without_a_daemon_says_that_programs_were_skipped() -> Outcome {
    let told = Told::new("misses-run", 2)?;
    let (policy, records) = (format!("{}/policy.yaml", told.place), format!("{}/records.jsonl", told.place));
    let spec = "exec:\n  - {allow: [\"/bin/busybox\"]}\n";
    fs::write(&policy, policy::document("misses-scenario", spec, told.place.as_ref()))?;
    let mut run = Command::new("agent-monitor");
    run.args(["run", "--config", &told.settings(), "--policy", &policy, "--record", &records]);
    let output = run.args(["--", "/bin/busybox", "true"]).output().context("start agent-monitor run")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = "hook file_open: the kernel skipped its program 2 times";
    ensure!(output.status.success() && text.contains(reason), "it ended with {}: {text}", output.status);
    let records = fs::read_to_string(records)?;
    let told = |line: &str| line.contains("\"action\":\"degraded\"") && line.contains(reason);
    ensure!(records.lines().any(told), "no record tells of it: {records}");
    Ok(())
}
