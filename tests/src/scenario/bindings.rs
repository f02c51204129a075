//! Which cgroups are bound, and which are not: one that lingers, one whose name is no text, those that are made while a
//! tree is bound.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::cgroup::{self, Cgroup};
use crate::harness::control::{ask, metric, metrics};
use crate::harness::daemon::PLACE;
use crate::harness::policy::{NOTHING, PolicyFile};
use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_restarted_daemon_binds_nothing_but_the_agents_cgroups_where_one_is_gone_and_lingers,
    a_cgroup_made_while_its_tree_is_bound_is_bound,
    a_cgroup_whose_name_is_no_text_is_bound_and_follows_its_policy,
    a_cgroup_made_anew_is_bound_while_the_one_before_it_lingers,
    a_cgroup_of_the_configuration_that_is_made_anew_is_told_of_and_bound_again,
];

/// What is known of the agent whose cgroup has this id; null where there is none.
fn agent_of(cgroup_id: u64) -> anyhow::Result<Value> {
    let known = ask("GET", "/v1/agents", &Value::Null)?;
    let found = known.as_array().into_iter().flatten().find(|one| one["cgroup_id"] == cgroup_id);
    Ok(found.cloned().unwrap_or_default())
}

/// A cgroup that is removed is held by the kernel until its last process is reaped. Its agent has ended, and nothing is bound
/// to it any more.
fn a_restarted_daemon_binds_nothing_but_the_agents_cgroups_where_one_is_gone_and_lingers(
    scene: &mut Scene<'_>,
) -> Outcome {
    let file = scene.file("allowed", "a");
    let (read, write) = (step!("open", file, "r"), step!("open", file, "w"));
    let unbound = Cgroup::make("/scenarios-unbound/below")?;
    let mut outsiders = [Process::start()?, Process::start_in(&unbound.directory())?];
    let mut agent = scene.process()?;
    scene.bind("files:\n  - {allow: [read], paths: [\"$W/allowed\"]}\n")?;
    // One is removed while a daemon runs, the other while none does.
    let paths = ["/agents.slice/locked/scenario-first", "/agents.slice/locked/scenario-second"];
    let [first, second] = [Cgroup::make(paths[0])?, Cgroup::make(paths[1])?];
    let ids = [cgroup::id(&first.directory())?, cgroup::id(&second.directory())?];
    for path in paths {
        scene.records.wait(scene.start, path, &json!({"type": "agent", "action": "started"}))?;
    }
    let bound = metric("agent_monitor_map_entries", &["BINDINGS"])?;
    let zombies = [Process::start_in(&first.directory())?, Process::start_in(&second.directory())?];
    cgroup::remove(&first.directory())?;
    let exited = |path: &str| json!({"type": "agent", "action": "exited", "agent": {"cgroup": path}});
    scene.records.wait(scene.start, paths[0], &exited(paths[0]))?;
    ensure!(agent_of(ids[0])?.is_null(), "the agent that has ended is {}", agent_of(ids[0])?);
    bound_are(bound - 1)?;
    scene.daemon.kill();
    cgroup::remove(&second.directory())?;
    scene.daemon.start_again(&[])?;
    for outsider in &mut outsiders {
        outsider.works(&write, "as an outsider, with the next daemon")?;
    }
    agent.works(&read, "with the next daemon")?;
    agent.expect(&write, EACCES, "with the next daemon")?;
    scene.records.wait(scene.start, paths[1], &exited(paths[1]))?;
    // And one that comes when all is told.
    scene.daemon.end()?;
    scene.daemon.start_again(&[])?;
    for id in ids {
        ensure!(agent_of(id)?.is_null(), "the agent that has ended is {}", agent_of(id)?);
    }
    bound_are(bound - 2)?;
    drop(zombies);
    scene.unbind_after(1)?;
    for path in paths {
        let ends = scene.records.count(scene.start, path, &exited(path))?;
        ensure!(ends == 1, "{ends} ends of {path} are told");
    }
    Ok(())
}

/// Waits until so many cgroups are bound.
fn bound_are(expected: u64) -> Outcome {
    let deadline = Instant::now() + limit();
    loop {
        let bound = metric("agent_monitor_map_entries", &["BINDINGS"])?;
        if bound == expected {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{bound} cgroups are bound, not {expected}");
        // The map tells nobody of a change.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process goes from one new cgroup into the next, deeper and deeper, while the tree is bound. Beside it there are others,
/// so that going through the tree takes some time.
fn a_cgroup_made_while_its_tree_is_bound_is_bound(scene: &mut Scene<'_>) -> Outcome {
    const ROUNDS: u32 = 5;
    const BESIDE: u32 = 200;
    let (file, stop) = (scene.file("file", "f"), scene.path("stop"));
    let step = step!("open", file, "r");
    for round in 0..ROUNDS {
        let top = Cgroup::make(&format!("{}/base", scene.cgroup.path))?;
        for number in 0..BESIDE {
            fs::create_dir(scene.cgroup.directory().join(format!("c{number}")))?;
        }
        let mut process = Process::start_in(&top.directory())?;
        process.works(&step, "before binding")?;
        let descend = step!("descend", top.directory(), stop);
        process.send(&descend)?;
        scene.bind(NOTHING)?;
        // Bound, it can't make another one; or else it goes on until it is told to stop.
        fs::write(&stop, "")?;
        let (errno, made) = process.answer(&descend)?;
        ensure!(errno == EACCES, "round {round}: it made {made} cgroups and ended with errno {errno}, not denied");
        process.expect(&step, EACCES, "below a bound cgroup")?;
        scene.unbind()?;
        process.works(&step, "after unbinding")?;
        drop(process);
        fs::remove_file(&stop)?;
        cgroup::remove(&scene.cgroup.directory())?;
        scene.cgroup = Cgroup::make(&scene.cgroup.path)?;
    }
    Ok(())
}

fn a_cgroup_whose_name_is_no_text_is_bound_and_follows_its_policy(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let name = OsStr::from_bytes(b"n\xff");
    let below = scene.cgroup.directory().join(name);
    fs::create_dir(&below)?;
    let mut process = Process::start_in(&below)?;
    process.works(&step, "before binding")?;
    // Bound where it is, and with its parent's binding when that changes.
    let named = PolicyFile("scenario-mode.yaml");
    put(&named, scene, "enforce")?;
    let id = scene.bind_named("scenario-mode", json!({}))?;
    process.expect(&step, EACCES, "bound")?;
    let own = cgroup::directory("/agents.slice/scenario-mode").join(name);
    fs::create_dir(&own)?;
    let own = Removed(own);
    let mut agent = Process::start_in(&own.0)?;
    agent.expect(&step, EACCES, "below the agents root")?;
    let path = "/agents.slice/scenario-mode/n\\xff";
    let started = json!({"type": "agent", "action": "started", "agent": {"cgroup": path, "name": "n\\xff"}});
    scene.records.wait(scene.start, "\"started\"", &started)?;
    let unbound = Cgroup::make("/scenarios-unbound/below")?;
    let mut outsider = Process::start_in(&unbound.directory())?;
    put(&named, scene, "audit")?;
    process.works(&step, "in audit mode")?;
    agent.works(&step, "in audit mode, below the agents root")?;
    outsider.works(&step!("open", file, "w"), "as an outsider")?;
    put(&named, scene, "enforce")?;
    process.expect(&step, EACCES, "enforced again")?;
    agent.expect(&step, EACCES, "enforced again, below the agents root")?;
    outsider.works(&step!("open", file, "w"), "as an outsider")?;
    // With the next daemon it is the same.
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    let known = ask("GET", "/v1/agents", &Value::Null)?;
    let same = known.as_array().into_iter().flatten().filter(|one| one["cgroup"] == path || one["id"] == id).count();
    ensure!(same == 2, "of the two agents are known: {known}");
    process.expect(&step, EACCES, "with the next daemon")?;
    agent.expect(&step, EACCES, "with the next daemon, below the agents root")?;
    outsider.works(&step!("open", file, "w"), "as an outsider, with the next daemon")?;
    let counts = scene.unbind()?;
    ensure!(counts["denied"] == 3 && counts["audited"] == 1, "counted are {counts}");
    process.works(&step, "after unbinding").map(drop)
}

/// Puts the policy in force with this mode, and comes back when it is. It lets nothing be read.
fn put(named: &PolicyFile, scene: &mut Scene<'_>, mode: &str) -> Outcome {
    let start = scene.records.lines.len();
    named.write(&policy::document("scenario-mode", &format!("mode: {mode}\n{NOTHING}"), Path::new("/")))?;
    let known = json!({"type": "policy", "policy": {"name": "scenario-mode"}});
    scene.records.wait(start, "\"policy\"", &known).map(drop)
}

/// The directory of a cgroup, removed at the end.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = cgroup::remove(&self.0);
    }
}

fn a_cgroup_made_anew_is_bound_while_the_one_before_it_lingers(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let zombie = scene.process()?;
    scene.bind(NOTHING)?;
    let first = cgroup::id(&scene.cgroup.directory())?;
    cgroup::remove(&scene.cgroup.directory())?;
    let again = Cgroup::make(&scene.cgroup.path)?;
    let mut process = Process::start_in(&again.directory())?;
    process.works(&step, "before binding")?;
    scene.bind(NOTHING)?;
    process.expect(&step, EACCES, "bound")?;
    // That of the first is told though its cgroup is held still.
    let exited = json!({"type": "agent", "action": "exited", "agent": {"cgroup": scene.cgroup.path}});
    scene.records.wait(scene.start, &format!("\"cgroup_id\":{first}"), &exited)?;
    ensure!(agent_of(first)?.is_null(), "the agent that has ended is {}", agent_of(first)?);
    scene.unbind_after(1)?;
    process.works(&step, "after unbinding")?;
    drop(zombie);
    Ok(())
}

/// As a service manager does it at each restart.
fn a_cgroup_of_the_configuration_that_is_made_anew_is_told_of_and_bound_again(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let (read, write) = (step!("open", "/dev/null", "r"), step!("open", file, "w"));
    let path = format!("{}/service", scene.cgroup.path);
    let config = Path::new(PLACE).join("configured.toml");
    fs::write(&config, format!("[[agents]]\ncgroup = \"{path}\"\npolicy = \"locked\"\n"))?;
    let service = Cgroup::make(&path)?;
    let mut process = Process::start_in(&service.directory())?;
    process.works(&write, "before binding")?;
    scene.daemon.end()?;
    scene.daemon.start_again(&["--config", &config.to_string_lossy()])?;
    process.expect(&write, EACCES, "bound by configuration")?;
    ensure!(metrics("/readyz")?.0 == 200, "not ready");
    // Gone, while its last process is not reaped yet.
    let (zombie, first) = (process, cgroup::id(&service.directory())?);
    let mut start = scene.records.lines.len();
    cgroup::remove(&service.directory())?;
    told(scene, &mut start, &path, "is gone")?;
    let (status, body) = metrics("/readyz")?;
    ensure!(status == 503 && body.contains(&path), "with the cgroup gone /readyz gave {status}: {body}");
    // Made again: the first moments are not guarded, and that is told.
    let mut process = bound_again(scene, &mut start, &path)?;
    process.works(&read, "bound again")?;
    process.expect(&write, EACCES, "bound again")?;
    let exited = json!({"type": "agent", "action": "exited", "agent": {"cgroup": path, "cgroup_id": first}});
    scene.records.wait(scene.start, &path, &exited)?;
    ensure!(agent_of(first)?.is_null(), "the agent that has ended is {}", agent_of(first)?);
    drop(zombie);
    // Gone and made again, and no time between.
    cgroup::remove(&service.directory())?;
    drop(process);
    let mut process = bound_again(scene, &mut start, &path)?;
    process.expect(&write, EACCES, "bound a third time")?;
    // The next daemon starts while there is none.
    scene.daemon.end()?;
    cgroup::remove(&service.directory())?;
    drop(process);
    scene.daemon.start_again(&["--config", &config.to_string_lossy()])?;
    told(scene, &mut start, &path, "is not there")?;
    let mut process = bound_again(scene, &mut start, &path)?;
    process.expect(&write, EACCES, "bound by the next daemon")?;
    let id = cgroup::id(&service.directory())?;
    scene.daemon.end()?;
    scene.daemon.start_again(&[])?;
    scene.agent = agent_of(id)?["id"].as_str().map(str::to_owned);
    scene.unbind()?;
    process.works(&write, "after unbinding").map(drop)
}

/// Makes the cgroup again with a process in it, and waits until it is bound and the daemon ready; what was before is told.
fn bound_again(scene: &mut Scene<'_>, start: &mut usize, path: &str) -> anyhow::Result<Process> {
    let directory = cgroup::directory(path);
    fs::create_dir(&directory)?;
    let process = Process::start_in(&directory)?;
    told(scene, start, path, "is not guarded until it is bound")?;
    let bound = json!({"type": "agent", "action": "bound", "agent": {"cgroup_id": cgroup::id(&directory)?}});
    scene.records.wait(*start, path, &bound)?;
    scene.records.wait(*start, "\"ready\"", &json!({"type": "monitor", "action": "ready"}))?;
    let (status, body) = metrics("/readyz")?;
    ensure!(status == 200, "bound again, /readyz gave {status}: {body}");
    Ok(process)
}

/// Waits until the monitor tells in these words that it is degraded by the path; later only what comes after is looked at.
fn told(scene: &mut Scene<'_>, start: &mut usize, path: &str, words: &str) -> Outcome {
    scene.records.wait(*start, words, &json!({"type": "monitor", "action": "degraded"}))?;
    let found = |line: &String| line.contains(words) && line.contains(path);
    let at = scene.records.lines.iter().skip(*start).position(found);
    *start += at.with_context(|| format!("{path} is not named with {words}"))? + 1;
    Ok(())
}
