//! The daemon ends, however it ends, and enforcement goes on; the next one takes over what it finds.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cgroup::Cgroup;
use crate::harness::control::{self, ask};
use crate::harness::process::Step;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_killed_daemon_leaves_its_agents_guarded_and_the_next_takes_over,
];

const POLICY: &str = "files:\n  - {allow: [read], paths: [\"$W/allowed\"]}\nnetwork:\n  - {allow: [create], sockets: [inet]}\n  \
                      - {allow: [connect], to: {addresses: [\"127.0.0.2\"]}}\n";

/// A process of an agent that tries what is forbidden and what is allowed all the while.
struct Hammer {
    process: Process,
    step: Step,
    stop: PathBuf,
}

impl Hammer {
    /// Starts it in the scene's cgroup, which is bound to [`POLICY`].
    fn start(scene: &Scene<'_>, mut process: Process) -> Result<Self> {
        let (forbidden, allowed) = (scene.file("forbidden", "f"), scene.file("allowed", "a"));
        let stop = scene.path("stop");
        let step = step!("hammer", stop, forbidden, allowed, "127.0.0.1:9", "127.0.0.2:9");
        process.send(&step)?;
        Ok(Self { process, step, stop })
    }

    /// Ends it: nothing forbidden worked, nothing allowed failed. How many rounds there were, with two denials each.
    fn end(&mut self) -> Result<u64> {
        fs::write(&self.stop, "")?;
        let (errno, rounds) = self.process.answer(&self.step)?;
        ensure!(errno != libc::ENOTRECOVERABLE, "something forbidden worked");
        ensure!(errno == 0 && rounds > 0, "something allowed gave errno {errno}, after {rounds} rounds");
        Ok(rounds.unsigned_abs())
    }
}

fn a_killed_daemon_leaves_its_agents_guarded_and_the_next_takes_over(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let process = scene.process()?;
    let mut other = scene.process()?;
    let id = scene.bind_as("scenario", POLICY, json!({"name": "survivor", "labels": {"session": "s-1"}}))?;
    other.expect(&step, EACCES, "with a daemon")?;
    let before = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    let mut hammer = Hammer::start(scene, process)?;
    scene.daemon.kill();
    other.expect(&step, EACCES, "without a daemon")?;
    // What is made meanwhile is an agent's too: of this one, or a new one that may do nothing.
    let (child, path) = (Cgroup::make(&format!("{}/child", scene.cgroup.path))?, "/agents.slice/scenario-meanwhile");
    let below = Cgroup::make(path)?;
    let mut processes = [Process::start_in(&child.directory())?, Process::start_in(&below.directory())?];
    for process in &mut processes {
        process.expect(&step, EACCES, "without a daemon, in a new cgroup")?;
    }
    scene.daemon.start_again(&[])?;
    let after = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    for key in ["id", "name", "cgroup", "cgroup_id", "policy", "generation", "mode", "origin", "labels"] {
        ensure!(before[key] == after[key], "{key} was {} and is {}", before[key], after[key]);
    }
    // Rounds are few in a slow machine: what comes after the start is denied as well.
    other.expect(&step, EACCES, "with the next daemon")?;
    let rounds = hammer.end()?;
    // What was denied while no daemon ran is in the log, and the equation holds.
    let denied = record("file_open", &["read"], json!({"path": file}), "no_rule", None);
    for pid in [other.pid(), processes[0].pid()] {
        let mut expected = denied.clone();
        expected["process"] = json!({"pid": pid});
        scene.record(&expected)?;
    }
    let word = format!("\"cgroup\":\"{path}\"");
    let started = json!({"type": "agent", "action": "started", "policy": {"name": "empty"}});
    scene.records.wait(scene.start, &word, &started)?;
    scene.records.wait(
        scene.start,
        &word,
        &json!({"operation": "file_open", "process": {"pid": processes[1].pid()}}),
    )?;
    let counts = scene.unbind()?;
    let number = |name: &str| counts[name].as_u64().context("a count is a number");
    ensure!(number("denied")? == 2 * rounds + 4, "{rounds} rounds, and counted are {counts}");
    ensure!(number("written")? + number("lost")? == number("denied")?, "counted are {counts}");
    let word = format!("\"{id}\"");
    scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
    let about = scene.records.about(scene.start, &word)?;
    let written = about.iter().filter(|one| one["type"] == "operation" && one["verdict"] == "deny").count() as u64;
    ensure!(written == number("written")?, "{written} records are in the log: {counts}");
    other.works(&step, "after unbinding")?;
    ensure!(control::metrics("/readyz")?.0 == 200, "the next daemon is not ready");
    Ok(())
}
