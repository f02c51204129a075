//! `cgroup_mkdir`, `cgroup_rmdir` and `cgroup_release`: a cgroup is bound from its creation to its removal, in the kernel.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use crate::harness::cgroup::{self, Cgroup};
use crate::harness::mount::Mount;
use crate::harness::policy::NOTHING;
use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_cgroup_made_in_an_agents_is_the_agents_from_its_creation,
    a_cgroup_below_the_agents_root_starts_empty,
    with_the_daemon_stopped_a_new_cgroup_is_denied_everything,
    a_cgroup_below_a_policys_has_that_policy,
    a_thousand_cgroups_made_and_removed_leave_no_binding,
    a_cgroup_of_another_hierarchy_changes_no_binding,
];

fn a_cgroup_made_in_an_agents_is_the_agents_from_its_creation(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let before = Cgroup::make(&format!("{}/before", scene.cgroup.path))?;
    let mut early = Process::start_in(&before.directory())?;
    early.works(&step, "before binding")?;
    scene.bind(NOTHING)?;
    // With the daemon stopped, so that nobody but the kernel can have bound it.
    scene.daemon.freeze();
    let after = Cgroup::make(&format!("{}/after/deeper", scene.cgroup.path))?;
    let mut late = Process::start_in(&after.directory())?;
    let results = (early.run(&step)?.0, late.run(&step)?.0);
    scene.daemon.thaw();
    anyhow::ensure!(results == (EACCES, EACCES), "below an agent's cgroup an open gave {results:?}");
    let id = scene.agent.clone().unwrap_or_default();
    for pid in [early.pid(), late.pid()] {
        scene.record(&json!({"operation": "file_open", "agent": {"id": id}, "process": {"pid": pid}}))?;
    }
    scene.unbind_after(2)?;
    early.works(&step, "after unbinding")?;
    late.works(&step, "after unbinding").map(drop)
}

/// Everything that is tried in a new agent, one of each class.
fn tries(file: &Path) -> Vec<(crate::harness::process::Step, i32, Value)> {
    let denied = |operation: &str, access: &[&str], object: Value| {
        let mut expected = record(operation, access, object, "no_rule", None);
        expected["policy"] = json!({"name": "empty", "rule": null});
        expected
    };
    vec![
        (step!("open", file, "r"), EACCES, denied("file_open", &["read"], json!({"path": file}))),
        (step!("exec", "/bin/busybox", "true"), EACCES, denied("file_open", &[], json!({"path": "/bin/busybox"}))),
        (step!("socket", "2", "1", "0"), EACCES, denied("socket_create", &["create"], json!({"family": "inet"}))),
        (step!("sethostname"), libc::EPERM, denied("capable", &[], json!({"name": "CAP_SYS_ADMIN"}))),
        (
            step!("mkdir", file.with_extension("d")),
            EACCES,
            denied("path_mkdir", &["create"], json!({"path": file.with_extension("d")})),
        ),
    ]
}

fn a_cgroup_below_the_agents_root_starts_empty(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let path = "/agents.slice/scenario-empty";
    let own = Cgroup::make(path)?;
    let word = format!("\"cgroup\":\"{path}\"");
    let started = json!({"type": "agent", "action": "started", "policy": {"name": "empty"}});
    let id = scene.records.wait(scene.start, &word, &started)?["agent"]["id"].clone();
    let mut process = Process::start_in(&own.directory())?;
    for (step, errno, expected) in tries(&file) {
        process.expect(&step, errno, "below the agents root")?;
        scene.records.wait(scene.start, &word, &expected)?;
    }
    drop(process);
    drop(own);
    let counts = json!({"denied": 5, "written": 5, "lost": 0});
    let exited = json!({"type": "agent", "action": "exited", "agent": {"id": id}, "counts": counts});
    scene.records.wait(scene.start, &word, &exited).map(drop)
}

fn with_the_daemon_stopped_a_new_cgroup_is_denied_everything(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let path = "/agents.slice/scenario-stopped";
    scene.daemon.freeze();
    let own = Cgroup::make(path)?;
    let mut process = Process::start_in(&own.directory())?;
    let mut results = Vec::new();
    for (step, _, _) in tries(&file) {
        results.push(process.run(&step)?.0);
    }
    let mut outsider = Process::start()?;
    outsider.works(&step!("open", file, "r"), "as an outsider, with the daemon stopped")?;
    scene.daemon.thaw();
    let expected: Vec<i32> = tries(&file).iter().map(|(_, errno, _)| *errno).collect();
    anyhow::ensure!(results == expected, "with the daemon stopped: {results:?}, not {expected:?}");
    // What happened meanwhile is recorded once it goes on.
    for (_, _, expected) in tries(&file) {
        scene.records.wait(scene.start, &format!("\"cgroup\":\"{path}\""), &expected)?;
    }
    Ok(())
}

fn a_cgroup_below_a_policys_has_that_policy(scene: &mut Scene<'_>) -> Outcome {
    let path = "/agents.slice/locked/scenario";
    let own = Cgroup::make(path)?;
    let mut process = Process::start_in(&own.directory())?;
    process.works(&step!("open", "/dev/null", "r"), "below /agents.slice/locked")?;
    process.expect(&step!("open", "/dev/null", "w"), EACCES, "below /agents.slice/locked")?;
    let expected = json!({"operation": "file_open", "access": ["write"], "object": {"path": "/dev/null"},
        "reason": "deny_rule", "policy": {"name": "locked", "rule": "files[0]"}});
    scene.records.wait(scene.start, &format!("\"cgroup\":\"{path}\""), &expected).map(drop)
}

fn a_thousand_cgroups_made_and_removed_leave_no_binding(scene: &mut Scene<'_>) -> Outcome {
    let entries = || crate::harness::control::metric("agent_monitor_map_entries", &["BINDINGS"]);
    scene.bind(NOTHING)?;
    let before = entries()?;
    let directory = scene.cgroup.directory();
    for number in 0..1000 {
        let child = directory.join(format!("c{number}"));
        fs::create_dir(&child).context("make a cgroup")?;
        fs::remove_dir(&child).context("remove a cgroup")?;
    }
    // A denial that comes after them all is in force and recorded.
    let file = scene.file("file", "f");
    let mut process = scene.process()?;
    process.expect(&step!("open", file, "r"), EACCES, "bound")?;
    scene.record(&json!({"operation": "file_open", "object": {"path": file}}))?;
    let after = entries()?;
    anyhow::ensure!(after <= before, "{before} bindings became {after}");
    let id = cgroup::id(&directory)?;
    scene.record(&json!({"agent": {"cgroup_id": id}})).map(drop)
}

/// Each hierarchy of cgroup v1 counts its ids for itself, so that one of its cgroups has the id of an agent's.
fn a_cgroup_of_another_hierarchy_changes_no_binding(scene: &mut Scene<'_>) -> Outcome {
    let first = scene.path("v1");
    fs::create_dir(&first)?;
    let words = ["-t", "cgroup", "-o", "none,name=scenario", "none"].map(OsStr::new);
    let _mount = match Mount::with(&[&words[..], &[first.as_os_str()]].concat(), &first) {
        Ok(mount) => mount,
        Err(error) => return Err(skip(&format!("this kernel mounts no hierarchy of cgroup v1: {error}"))),
    };
    let (there, agents) = same_id(&first, &scene.cgroup.path)?;
    // The one above stays until the end.
    let _above = std::mem::replace(&mut scene.cgroup, agents);
    let id = scene.bind(NOTHING)?;
    let mut process = scene.process()?;
    let file = scene.file("file", "f");
    let open = step!("open", file, "r");
    let denied = json!({"operation": "file_open", "object": {"path": file}});
    // One that is made in it is nobody's, though it may have the id of somebody's.
    let entries = || crate::harness::control::metric("agent_monitor_map_entries", &["BINDINGS"]);
    let before = entries()?;
    fs::create_dir(there.join("child"))?;
    scene.denied(&mut process, &open, EACCES, &denied)?;
    anyhow::ensure!(entries()? == before, "a cgroup of another hierarchy was bound");
    // And what is removed is no agent. The kernel lets go of cgroups one after the other: this one, then ours.
    fs::remove_dir(there.join("child"))?;
    fs::remove_dir(&there)?;
    let child = scene.cgroup.directory().join("child");
    fs::create_dir(&child)?;
    fs::remove_dir(&child)?;
    let (deadline, mut denials) = (Instant::now() + limit(), 1);
    loop {
        process.expect(&open, EACCES, "bound, while a cgroup with the same id is let go")?;
        denials += 1;
        let counts = fs::read_to_string(scene.cgroup.directory().join("cgroup.stat"))?;
        if counts.contains("nr_dying_descendants 0\n") {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "the kernel does not let go of a removed cgroup: {counts}");
    }
    let bound = crate::harness::control::ask("GET", "/v1/agents", &serde_json::Value::Null)?;
    anyhow::ensure!(bound.to_string().contains(&format!("\"{id}\"")), "the agent is gone: {bound}");
    let counts = scene.unbind()?;
    anyhow::ensure!(counts["denied"] == denials && counts["lost"] == 0, "{denials} were denied, counted are {counts}");
    Ok(())
}

/// A cgroup of the hierarchy that is mounted at `first`, and one below `parent` with the same id.
fn same_id(first: &Path, parent: &str) -> anyhow::Result<(PathBuf, Cgroup)> {
    const TRIES: usize = 20_000;
    let ours = |number: usize| Cgroup::make(&format!("{parent}/{number}"));
    // Past what the unified hierarchy has come to, then some in a row that stay.
    let start = cgroup::id(&ours(0)?.directory())?;
    let mut there = BTreeMap::new();
    for number in 0..TRIES {
        let directory = first.join(number.to_string());
        fs::create_dir(&directory)?;
        let id = cgroup::id(&directory)?;
        if id > start {
            there.insert(id, directory);
        } else {
            fs::remove_dir(directory)?;
        }
        if there.len() == 400 {
            break;
        }
    }
    for number in 1..TRIES {
        let ours = ours(number)?;
        if let Some(directory) = there.get(&cgroup::id(&ours.directory())?) {
            return Ok((directory.clone(), ours));
        }
        // Another number of files, so that the ids are not always as far from each other.
        let controllers = Path::new(cgroup::MOUNT).join(parent.trim_start_matches('/')).join("cgroup.subtree_control");
        let _ = fs::write(controllers, if number % 3 == 0 { "+pids" } else { "-pids" });
    }
    anyhow::bail!("no two cgroups have the same id")
}
