//! The daemon ends, however it ends, and enforcement goes on; the next one takes over what it finds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cgroup::{self, Cgroup};
use crate::harness::control::{self, ask};
use crate::harness::daemon::{PLACE, agent_states};
use crate::harness::policy::NOTHING;
use crate::harness::process::Step;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, record};
use crate::trigger::hammer::STEP;
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_killed_daemon_leaves_its_agents_guarded_and_the_next_takes_over,
    agents_that_come_and_go_without_a_daemon_are_told_of_by_the_next,
    a_daemon_starts_after_a_crowd_has_come_and_gone_without_one,
    an_agent_of_which_a_killed_daemon_had_not_told_is_told_of_by_the_next,
    what_a_killed_daemon_had_not_written_is_told_and_counted,
    a_cgroup_that_was_unbound_and_bound_again_just_before_the_daemon_was_killed_stays_bound,
    a_stopped_daemon_leaves_its_agents_guarded_and_says_so,
    a_second_daemon_with_a_socket_of_its_own_refuses_as_well,
];

pub const POLICY: &str = "files:\n  - {allow: [read], paths: [\"$W/allowed\"]}\nnetwork:\n  - {allow: [create], sockets: [inet]}\n  \
                          - {allow: [connect], to: {addresses: [\"127.0.0.2\"]}}\n";
/// The checkpoint of what became of each agent's operations.
const ACCOUNTS: &str = "/var/lib/agent-monitor/accounts.json";
/// Where the pins are.
pub const PINS: &str = "/sys/fs/bpf/agent-monitor";

/// A process of an agent that tries what is forbidden and what is allowed all the while.
pub struct Hammer {
    process: Process,
    step: Step,
    stop: PathBuf,
}

impl Hammer {
    /// Starts it in the scene's cgroup, which is bound to [`POLICY`].
    pub fn start(scene: &Scene<'_>, mut process: Process) -> Result<Self> {
        let (forbidden, allowed) = (scene.file("forbidden", "f"), scene.file("allowed", "a"));
        let stop = scene.path("stop");
        let step = step!("hammer", stop, forbidden, allowed, "127.0.0.1:9", "127.0.0.2:9");
        process.send(&step)?;
        Ok(Self { process, step, stop })
    }

    /// Ends it: nothing forbidden worked, nothing allowed failed. How many rounds there were, with two denials each.
    pub fn end(mut self) -> Result<u64> {
        fs::write(&self.stop, "")?;
        let (errno, rounds) = self.process.answer(&self.step)?;
        let (step, errno) = (errno / STEP, errno % STEP);
        ensure!(errno != libc::ENOTRECOVERABLE, "step {step}, which is forbidden, worked");
        ensure!(errno == 0 && rounds > 0, "step {step} gave errno {errno}, after {rounds} rounds");
        Ok(rounds.unsigned_abs())
    }
}

/// What the control socket says of an agent, without its counts.
pub fn described(id: &str) -> Result<Value> {
    let mut agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    agent.as_object_mut().context("an agent is an object")?.remove("counts");
    Ok(agent)
}

/// Unbinds the scene's agent: so many operations were denied, each of which is told in the log or counted as lost.
pub fn unbind_after(scene: &mut Scene<'_>, denials: u64) -> Outcome {
    let word = format!("\"{}\"", scene.agent.clone().unwrap_or_default());
    let counts = scene.unbind()?;
    scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
    scene.records.account(scene.start, &word, &counts, denials)
}

fn a_killed_daemon_leaves_its_agents_guarded_and_the_next_takes_over(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let (process, mut other) = (scene.process()?, scene.process()?);
    let id = scene.bind_as("scenario", POLICY, json!({"name": "survivor", "labels": {"session": "s-1"}}))?;
    other.expect(&step, EACCES, "with a daemon")?;
    let before = described(&id)?;
    let hammer = Hammer::start(scene, process)?;
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
    let after = described(&id)?;
    ensure!(before == after, "the agent was {before} and is {after}");
    other.expect(&step, EACCES, "with the next daemon")?;
    let rounds = hammer.end()?;
    // What was denied while no daemon ran is in the log.
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
    unbind_after(scene, 2 * rounds + 4)?;
    other.works(&step, "after unbinding")?;
    ensure!(control::metrics("/readyz")?.0 == 200, "the next daemon is not ready");
    Ok(())
}

fn agents_that_come_and_go_without_a_daemon_are_told_of_by_the_next(scene: &mut Scene<'_>) -> Outcome {
    let steps = [step!("open", scene.file("one", "1"), "r"), step!("open", scene.file("two", "2"), "r")];
    let mut process = scene.process()?;
    let home = scene.cgroup.directory();
    let directory = |name: &str| cgroup::directory(&format!("/agents.slice/{name}"));
    let started = json!({"type": "agent", "action": "started", "policy": {"name": "empty"}});
    // The first comes while there still is one.
    let names: Vec<String> = (0..20).map(|number| format!("scenario-gone{number}-")).collect();
    fs::create_dir(directory(&names[0])).context("make a cgroup")?;
    let first = scene.records.wait(scene.start, &names[0], &started)?;
    scene.daemon.kill();
    for name in &names {
        let own = directory(name);
        if name != &names[0] {
            fs::create_dir(&own).context("make a cgroup")?;
        }
        cgroup::enter(&own, process.pid())?;
        for step in &steps {
            process.expect(step, EACCES, "without a daemon, in a new cgroup")?;
        }
        cgroup::enter(&home, process.pid())?;
        fs::remove_dir(&own).context("remove a cgroup")?;
    }
    scene.daemon.start_again(&[])?;
    for name in &names {
        let exited = scene.records.wait(scene.start, name, &json!({"type": "agent", "action": "exited"}))?;
        scene.records.account(scene.start, name, &exited["counts"], 2)?;
        ensure!(exited["counts"]["written"] == 2, "not all was told: {exited}");
        let begun = scene.records.wait(scene.start, name, &started)?;
        ensure!(begun["agent"] == exited["agent"], "{begun} began and {exited} ended");
        ensure!(name != &names[0] || begun["seq"] == first["seq"], "its start is told twice");
    }
    // Each is told once, also by a daemon that comes after.
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    let path = "/agents.slice/scenario-after";
    let after = Cgroup::make(path)?;
    scene.records.wait(scene.start, path, &started)?;
    drop(after);
    scene.records.wait(scene.start, path, &json!({"type": "agent", "action": "exited"}))?;
    let ends = scene.records.count(scene.start, "scenario-gone", &json!({"type": "agent", "action": "exited"}))?;
    ensure!(ends == names.len(), "an end is told twice");
    Ok(())
}

/// All that they did is in the rings when the next daemon begins, which tests itself before it does anything else.
fn a_daemon_starts_after_a_crowd_has_come_and_gone_without_one(scene: &mut Scene<'_>) -> Outcome {
    const CROWD: usize = 1500;
    const WORD: &str = "scenario-crowd";
    scene.daemon.kill();
    for number in 0..CROWD {
        let directory = cgroup::directory(&format!("/agents.slice/{WORD}-{number}-"));
        fs::create_dir(&directory).context("make a cgroup")?;
        fs::remove_dir(&directory).context("remove a cgroup")?;
    }
    scene.daemon.start_again(&[])?;
    ensure!(control::metrics("/readyz")?.0 == 200, "the next daemon is not ready");
    for action in ["started", "exited"] {
        let told = json!({"type": "agent", "action": action});
        scene.records.wait(scene.start, &format!("{WORD}-{}-", CROWD - 1), &told)?;
        let count = scene.records.count(scene.start, WORD, &told)?;
        ensure!(count == CROWD, "{count} of {CROWD} are told of as {action}");
    }
    Ok(())
}

/// The moment between knowing an agent and telling of it can't be hit from outside. What a daemon that was killed in it
/// leaves is a checkpoint that does not name the agent.
fn an_agent_of_which_a_killed_daemon_had_not_told_is_told_of_by_the_next(scene: &mut Scene<'_>) -> Outcome {
    let path = "/agents.slice/scenario-untold-";
    let started = json!({"type": "agent", "action": "started", "policy": {"name": "empty"}});
    let below = Cgroup::make(path)?;
    let first = scene.records.wait(scene.start, path, &started)?;
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    scene.daemon.kill();
    let file = Path::new(ACCOUNTS);
    let mut accounts: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let begun = accounts["begun"].as_array().context("it says who has begun")?.len();
    ensure!(
        begun > 0 && accounts["position"]["seq"].as_u64() >= first["seq"].as_u64(),
        "{accounts} has not come so far"
    );
    ensure!(scene.records.count(scene.start, path, &started)? == 1, "its start is told twice");
    accounts["begun"] = json!([]);
    fs::write(file, accounts.to_string())?;
    scene.daemon.start_again(&[])?;
    drop(below);
    scene.records.wait(scene.start, path, &json!({"type": "agent", "action": "exited", "agent": first["agent"]}))?;
    let starts = scene.records.count(scene.start, path, &started)?;
    ensure!(starts == 2, "{starts} starts are told");
    Ok(())
}

/// What a daemon had taken out of the ring and not written when it was killed can't be arranged. The next one finds the same
/// where the checkpoint says that less is written than was taken.
fn what_a_killed_daemon_had_not_written_is_told_and_counted(scene: &mut Scene<'_>) -> Outcome {
    const DENIALS: u64 = 11;
    const MISSING: u64 = 4;
    let mut process = scene.process()?;
    let files: Vec<PathBuf> = (0..DENIALS).map(|number| scene.file(&format!("file{number}"), "f")).collect();
    let id = scene.bind(NOTHING)?;
    for file in &files {
        process.expect(&step!("open", file, "r"), EACCES, "bound")?;
    }
    scene.daemon.end()?;
    let path = Path::new(ACCOUNTS);
    let mut accounts: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let agents = accounts["agents"].as_object_mut().context("it has agents")?;
    let mut ours = agents.values_mut().filter(|account| account["denied"] == DENIALS);
    let (Some(account), None) = (ours.next(), ours.next()) else { anyhow::bail!("one agent has {DENIALS} denials") };
    account["denied"] = (DENIALS - MISSING).into();
    fs::write(path, accounts.to_string())?;
    scene.daemon.start_again(&[])?;
    let lost =
        json!({"type": "loss", "stage": "daemon", "reason": "denials_not_written", "count": MISSING, "agent": id});
    scene.records.wait(scene.start, "denials_not_written", &lost)?;
    let counted = |reason: &str| {
        control::metric("agent_monitor_events_lost_total", &["stage=\"daemon\"", &format!("reason=\"{reason}\"")])
    };
    let counts = [counted("denials_not_written")?, counted("telemetry_not_written")?];
    ensure!(counts == [MISSING, 0], "the metrics count {counts:?}");
    scene.unbind().map(drop)
}

/// Of an agent that has ended the state is kept until it is written down that its last record is in the log, which can't be
/// done here. So the next daemon finds it, and the same cgroup as another agent.
fn a_cgroup_that_was_unbound_and_bound_again_just_before_the_daemon_was_killed_stays_bound(
    scene: &mut Scene<'_>,
) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let mut process = scene.process()?;
    let cgroup = cgroup::id(&scene.cgroup.directory())?;
    scene.bind(NOTHING)?;
    process.expect(&step, EACCES, "bound")?;
    // What replaces the checkpoint is written here first.
    let new = Path::new(ACCOUNTS).with_extension("new");
    fs::create_dir(&new).context("keep checkpoints from being written")?;
    scene.unbind()?;
    process.works(&step, "unbound")?;
    let id = scene.bind(NOTHING)?;
    scene.daemon.kill();
    fs::remove_dir(&new)?;
    process.expect(&step, EACCES, "bound again, without a daemon")?;
    let kept = agent_states()?.iter().filter(|(_, state)| state["cgroup_id"] == cgroup).count();
    ensure!(kept == 2, "the state has {kept} agents of the cgroup");
    scene.daemon.start_again(&[])?;
    process.expect(&step, EACCES, "bound again, with the next daemon")?;
    let known = ask("GET", "/v1/agents", &Value::Null)?;
    let of_cgroup: Vec<&Value> =
        known.as_array().into_iter().flatten().filter(|one| one["cgroup_id"] == cgroup).collect();
    ensure!(matches!(of_cgroup[..], [one] if one["id"] == id), "agents of the cgroup are {of_cgroup:?}, not {id}");
    scene.unbind_after(2)?;
    process.works(&step, "after unbinding")?;
    let unbound = json!({"type": "agent", "action": "unbound", "counts": {"denied": 2}});
    scene.records.wait(scene.start, &id, &unbound)?;
    let ends = scene.records.count(scene.start, &id, &json!({"type": "agent", "action": "unbound"}))?;
    ensure!(ends == 2, "{ends} ends are told of two agents");
    Ok(())
}

fn a_stopped_daemon_leaves_its_agents_guarded_and_says_so(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let (process, mut other) = (scene.process()?, scene.process()?);
    let id = scene.bind(POLICY)?;
    let before = described(&id)?;
    let hammer = Hammer::start(scene, process)?;
    let status = scene.daemon.end()?;
    ensure!(status.success(), "the daemon ended with {status}");
    let stopped = scene.records.wait(scene.start, "\"monitor\"", &json!({"type": "monitor", "action": "stopped"}))?;
    let said = stopped["messages"].to_string();
    ensure!(said.contains("stay guarded") && !said.contains("[0 agents"), "it said {said}");
    other.expect(&step, EACCES, "without a daemon")?;
    // Nobody listens any more, and so `run` makes an agent of its own beside those that stay.
    ensure!(!Path::new(control::SOCKET).exists(), "the control socket is left");
    scene.daemon.start_again(&[])?;
    ensure!(described(&id)? == before, "the agent was {before} and is {}", described(&id)?);
    other.expect(&step, EACCES, "with the next daemon")?;
    let rounds = hammer.end()?;
    unbind_after(scene, 2 * rounds + 2)?;
    other.works(&step, "after unbinding").map(drop)
}

fn a_second_daemon_with_a_socket_of_its_own_refuses_as_well(scene: &mut Scene<'_>) -> Outcome {
    let config = Path::new(PLACE).join("second.toml");
    let text = "socket = \"/run/scenarios/second.sock\"\nmetrics_address = \"\"\naudit_log = \"/run/scenarios/second.jsonl\"\n\
                state_dir = \"/run/scenarios/second\"\nagents_root = \"second.slice\"\n";
    fs::write(&config, text)?;
    let second = std::process::Command::new("agent-monitor").arg("daemon").arg("--config").arg(&config).output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(1), "the second daemon ended with {}: {said}", second.status);
    for word in ["error:", PINS, &format!("pid {}", scene.daemon.pid())] {
        ensure!(said.contains(word), "it does not say {word}: {said}");
    }
    let status = ask("GET", "/v1/status", &Value::Null)?;
    ensure!(status["ready"] == true && status["pid"] == scene.daemon.pid(), "the first is not ready: {status}");
    Ok(())
}
