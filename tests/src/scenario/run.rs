//! `agent-monitor run`: with the node's daemon and without one.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::{Outcome, Scenario, Scene, cgroup, control, policy, records};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    run_with_a_daemon_gives_the_commands_status_and_a_report,
    run_with_a_daemon_records_to_a_file_and_leaves_no_agent,
    run_kills_what_the_command_left_behind,
    run_closes_what_it_was_not_told_to_keep,
];

/// Those that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    run_without_a_daemon_enforces_by_itself,
    run_fails_with_125_before_anything_is_executed,
    run_without_a_daemon_passes_statuses_on,
];

const SPEC: &str = r#"
files:
  - {allow: [read], paths: ["/tmp/scenarios-run/open", "/proc/self/maps"]}
  - {allow: [read, write], paths: ["/dev/null"]}
exec:
  - {allow: ["/bin/busybox", "/root/scenarios"]}
privileges:
  - {allow: [signal-same-agent]}
"#;

/// What `run` needs: a policy, a file that it allows to read, one that it does not.
fn place() -> anyhow::Result<PathBuf> {
    let place = PathBuf::from("/tmp/scenarios-run");
    fs::create_dir_all(&place)?;
    fs::write(place.join("policy.yaml"), policy::document("run-scenario", SPEC, &place))?;
    fs::write(place.join("open"), "o")?;
    fs::write(place.join("secret"), "s")?;
    fs::write(place.join("not-executable"), "text")?;
    Ok(place)
}

fn run(place: &Path, options: &[&str], command: &[&str]) -> anyhow::Result<Output> {
    let mut run = Command::new("agent-monitor");
    run.args(["run", "--policy"]).arg(place.join("policy.yaml")).args(options).arg("--").args(command);
    run.output().context("start agent-monitor run")
}

fn expect(output: &Output, status: i32, what: &str) -> Outcome {
    let text = String::from_utf8_lossy(&output.stderr);
    let ended = output.status.code();
    ensure!(
        ended == Some(status),
        "{what} ended with {ended:?} (signal {:?}), not {status}: {text}",
        output.status.signal()
    );
    Ok(())
}

/// The command's own statuses, and those of what can't be executed.
fn statuses(place: &Path) -> Outcome {
    let allowed = ["/root/scenarios", "once", "open", "/tmp/scenarios-run/open", "r"];
    let output = run(place, &[], &allowed)?;
    expect(&output, 0, "an allowed open")?;
    ensure!(output.stdout == b"open 0 0\n" && output.stderr.is_empty(), "it said {output:?}");
    expect(&run(place, &[], &["/bin/busybox", "sh", "-c", "exit 7"])?, 7, "exit 7")?;
    expect(&run(place, &[], &["/no/such/program"])?, 127, "a program that is not there")?;
    expect(&run(place, &[], &["/tmp/scenarios-run/not-executable"])?, 126, "a file that is no program")?;
    expect(&run(place, &[], &["/bin/busybox", "sh", "-c", "kill -TERM $$"])?, 128 + 15, "SIGTERM")
}

fn run_closes_what_it_was_not_told_to_keep(_scene: &mut Scene<'_>) -> Outcome {
    let place = place()?;
    let policy = place.join("policy.yaml");
    // The shell has the secret open when it starts `run`, whose command reads from that descriptor.
    let read = |options: &str| {
        let script = format!(
            "exec 7</tmp/scenarios-run/secret; agent-monitor run --policy {} {options} -- /bin/busybox sh -c 'cat <&7'",
            policy.display()
        );
        Command::new("/bin/busybox").args(["sh", "-c", &script]).output().context("start a shell")
    };
    let closed = read("")?;
    let text = String::from_utf8_lossy(&closed.stderr);
    ensure!(!closed.status.success() && closed.stdout.is_empty(), "the command read {closed:?}");
    ensure!(text.contains("7: Bad file descriptor"), "the shell said {text}");
    let kept = read("--keep-fd 7")?;
    ensure!(kept.status.success() && kept.stdout == b"s", "the command could not read what was kept: {kept:?}");
    expect(&read("--keep-fd 8")?, 125, "a descriptor that is not there")
}

/// The denied open, its status and its report.
fn report(place: &Path, options: &[&str]) -> Outcome {
    let denied = ["/root/scenarios", "once", "open", "/tmp/scenarios-run/secret", "r"];
    let output = run(place, options, &denied)?;
    expect(&output, libc::EACCES, "a denied open")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let wanted = [
        "1 operation was denied by the policy run-scenario",
        "file:read",
        "/tmp/scenarios-run/secret",
        "no rule allows it",
        "allow: [read]",
    ];
    for word in wanted {
        ensure!(text.contains(word), "{word:?} is not in the report:\n{text}");
    }
    // What it proposes is YAML that would allow it.
    let rule: String = text
        .lines()
        .filter_map(|line| line.split_once("agent-monitor: "))
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    ensure!(rule.contains("files:") && rule.contains("paths:"), "no YAML in the report:\n{text}");
    Ok(())
}

fn run_with_a_daemon_gives_the_commands_status_and_a_report(scene: &mut Scene<'_>) -> Outcome {
    let place = place()?;
    statuses(&place)?;
    report(&place, &[])?;
    let expected = json!({"type": "operation", "object": {"path": "/tmp/scenarios-run/secret"}, "errno": "EACCES",
        "policy": {"name": "run-scenario"}});
    scene.records.wait(scene.start, "run-scenario", &expected)?;
    // What is denied to execute is not executable.
    expect(&run(&place, &[], &["/usr/local/bin/agent-monitor", "--version"])?, 126, "a denied program")
}

fn run_with_a_daemon_records_to_a_file_and_leaves_no_agent(scene: &mut Scene<'_>) -> Outcome {
    let (place, file) = (place()?, "/tmp/scenarios-run/records.jsonl");
    let _ = fs::remove_file(file);
    report(&place, &["--record", file, "--name", "scenario-run", "--label", "session=s-1"])?;
    let text = fs::read_to_string(file)?;
    let expected = json!({"type": "operation", "operation": "file_open", "object": {"path": "/tmp/scenarios-run/secret"},
        "verdict": "deny", "agent": {"name": "scenario-run", "labels": {"session": "s-1"}}});
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    ensure!(lines?.iter().any(|line| records::holds(line, &expected)), "no such record in {text}");
    let exited = json!({"type": "agent", "action": "exited", "agent": {"name": "scenario-run"}});
    scene.records.wait(scene.start, "scenario-run", &exited)?;
    let agents = control::ask("GET", "/v1/agents", &Value::Null)?;
    ensure!(!agents.to_string().contains("scenario-run"), "it is still there: {agents}");
    Ok(())
}

fn run_kills_what_the_command_left_behind(_scene: &mut Scene<'_>) -> Outcome {
    let output =
        run(&place()?, &[], &["/bin/busybox", "sh", "-c", "/bin/busybox setsid /bin/busybox sleep 1000 & exit 3"])?;
    expect(&output, 3, "a command that leaves a process behind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains("were killed"), "the report does not say so: {text}");
    Ok(())
}

fn run_without_a_daemon_enforces_by_itself() -> Outcome {
    let (place, file) = (place()?, "/tmp/scenarios-run/alone.jsonl");
    let _ = fs::remove_file(file);
    report(&place, &["--record", file])?;
    let text = fs::read_to_string(file)?;
    ensure!(text.contains("\"path\":\"/tmp/scenarios-run/secret\""), "the record is not in {text}");
    let left = cgroup::directory(cgroup::RUN);
    let is_left = |path: &Path| path.is_dir() && !path.ends_with("guards");
    let below = fs::read_dir(&left).map(|entries| entries.flatten().filter(|entry| is_left(&entry.path())).count());
    ensure!(below.unwrap_or(0) == 0, "cgroups are left in {}", left.display());
    cgroup::until_no_guard()
}

fn run_without_a_daemon_passes_statuses_on() -> Outcome {
    let place = place()?;
    expect(&run(&place, &[], &["/bin/busybox", "sh", "-c", "kill -KILL $$"])?, 128 + 9, "SIGKILL")?;
    expect(&run(&place, &[], &["/no/such/program"])?, 127, "a program that is not there")
}

fn run_fails_with_125_before_anything_is_executed() -> Outcome {
    let place = place()?;
    fs::write(place.join("policy.yaml"), "kind: Nonsense\n")?;
    let output = run(&place, &[], &["/bin/busybox", "touch", "/tmp/scenarios-run/made"])?;
    expect(&output, 125, "a broken policy")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains("error:") && text.contains("policy.yaml:1:"), "the error has no place: {text}");
    ensure!(!place.join("made").exists(), "the command was executed");
    let missing =
        Command::new("agent-monitor").args(["run", "--policy", "no-such-policy", "--", "/bin/true"]).output()?;
    expect(&missing, 125, "a policy that is not there")?;
    let unknown = Command::new("agent-monitor").args(["run", "--polcy", "x", "--", "/bin/true"]).output()?;
    expect(&unknown, 125, "an unknown option")
}
