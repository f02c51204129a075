//! Another build takes the place of one, and back: for a moment both enforce, and at no moment none.
//! The other build is `cargo xtask build`'s `agent-monitor-other-layout`, whose maps have larger values.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::survival::{Hammer, PINS, POLICY, described, unbind_after};
use crate::harness::cgroup::Cgroup;
use crate::harness::control::ask;
use crate::harness::daemon::{Daemon, Starting};
use crate::harness::process::stand_back;
use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, control, records, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Races:
    another_build_takes_over_and_back_without_a_gap,
    a_daemon_killed_while_it_takes_over_leaves_no_gap,
];

const OTHER: &str = "/root/agent-monitor-other-layout";
const USUAL: &str = "agent-monitor";

fn builds() -> Vec<String> {
    let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Makes cgroups in these, puts a process into each and has it try what is forbidden, until told to stop. How many in each.
fn newcomers(parents: [&str; 2], file: &Path, stop: &AtomicBool) -> Result<u64> {
    stand_back(0)?;
    let mut denied = 0;
    while !stop.load(Ordering::Relaxed) {
        for parent in parents {
            let cgroup = Cgroup::make(&format!("{parent}/newcomer-{denied}"))?;
            let mut process = Process::start_in(&cgroup.directory())?;
            process.expect(&step!("open", file, "r"), EACCES, &format!("in {parent}, as newcomer {denied}"))?;
        }
        denied += 1;
    }
    Ok(denied)
}

/// Does something while an agent tries what is forbidden and allowed, in its cgroup and in new ones below it, and new
/// agents come below the agents root. The number of denials of the agent.
fn under_fire(scene: &mut Scene<'_>, act: impl FnOnce(&mut Scene<'_>) -> Outcome) -> Result<u64> {
    let file = scene.file("file", "f");
    let process = scene.process()?;
    process.stand_back()?;
    let hammer = Hammer::start(scene, process)?;
    let (stop, own) = (AtomicBool::new(false), scene.cgroup.path.clone());
    let scene = Mutex::new(scene);
    let (acted, came) = std::thread::scope(|scope| {
        let came = scope.spawn(|| newcomers([&own, "/agents.slice"], &file, &stop));
        let acted = act(&mut scene.lock().expect("nobody else takes it"));
        stop.store(true, Ordering::Relaxed);
        (acted, came.join())
    });
    acted?;
    let scene = scene.into_inner().expect("nobody panicked with it");
    let rounds = hammer.end().map_err(|error| error.context(blamed(scene)))?;
    let came = came.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    ensure!(came > 0, "no newcomer came");
    Ok(2 * rounds + came)
}

/// The last denials of what the scene's agent may do, and what was counted: a record may have found no room.
fn blamed(scene: &mut Scene<'_>) -> String {
    let id = format!("\"{}\"", scene.agent.clone().unwrap_or_default());
    let _ = scene.records.read();
    let forbidden =
        |one: &Value| ["/forbidden", "/file", "127.0.0.1"].iter().any(|word| one["object"].to_string().contains(word));
    let others = scene.records.about(scene.start, &id).flatten().filter(|one| !forbidden(one));
    let mut shown: Vec<String> = others.map(|one| records::short(&one)).collect();
    shown.reverse();
    shown.truncate(6);
    let agent = ask("GET", &format!("/v1/agents/{}", scene.agent.clone().unwrap_or_default()), &Value::Null);
    let counts = agent.map_or(Value::Null, |agent| agent["counts"].clone());
    format!("counted are {counts}, denied were {}", shown.join("; "))
}

fn another_build_takes_over_and_back_without_a_gap(scene: &mut Scene<'_>) -> Outcome {
    if !Path::new(OTHER).exists() {
        return Err(skip("the other build is not in this machine"));
    }
    let file = scene.file("file", "f");
    let mut process = scene.process()?;
    let id = scene.bind_as("scenario", POLICY, json!({"labels": {"session": "s-1"}}))?;
    let (before, first) = (described(&id)?, builds());
    let mut denials = 0;
    for (program, how) in [(OTHER, "stopped"), (USUAL, "killed")] {
        denials += under_fire(scene, |scene| {
            match how {
                "stopped" => drop(scene.daemon.end()?),
                _ => scene.daemon.kill(),
            }
            *scene.daemon = Daemon::start_build(program, &[])?;
            Ok(())
        })
        .with_context(|| format!("while {program} took over from a daemon that was {how}"))?;
        let after = described(&id)?;
        ensure!(before == after, "the agent was {before} and is {after}");
        let found = builds();
        ensure!(found.len() == 1, "there are pins of {found:?}");
        ensure!((found == first) == (program == USUAL), "there are pins of {found:?}, after {first:?}");
        process.expect(&step!("open", file, "r"), EACCES, "with the other build")?;
        denials += 1;
        fs::remove_file(scene.path("stop"))?;
    }
    ensure!(control::metrics("/readyz")?.0 == 200, "it is not ready: {:?}", control::metrics("/readyz")?);
    unbind_after(scene, denials)?;
    process.works(&step!("open", file, "r"), "after unbinding").map(drop)
}

fn a_daemon_killed_while_it_takes_over_leaves_no_gap(scene: &mut Scene<'_>) -> Outcome {
    if !Path::new(OTHER).exists() {
        return Err(skip("the other build is not in this machine"));
    }
    let id = scene.bind(POLICY)?;
    let before = described(&id)?;
    let denials = under_fire(scene, |scene| {
        scene.daemon.end()?;
        // It has made its maps; attached its first programs; attached them all; removed those of the first build.
        let unfinished = |links: usize| {
            builds().iter().filter(|name| name.ends_with("-unfinished")).any(|name| {
                let links_now = fs::read_dir(Path::new(PINS).join(name).join("links"));
                links_now.is_ok_and(|found| found.count() >= links)
            })
        };
        let finished = || builds().iter().all(|name| !name.ends_with("-unfinished"));
        let begun = || -> Result<Daemon> { Ok(Starting::begin(OTHER, &[])?.daemon) };
        for links in [0, 1, 40] {
            let mut daemon = begun()?;
            until(|| unfinished(links), &mut daemon)?;
            daemon.kill();
        }
        let mut daemon = begun()?;
        until(|| unfinished(1), &mut daemon)?;
        until(finished, &mut daemon)?;
        daemon.kill();
        scene.daemon.start_again(&[])
    })?;
    let after = described(&id)?;
    ensure!(before == after, "the agent was {before} and is {after}");
    ensure!(builds().len() == 1, "there are pins of {:?}", builds());
    unbind_after(scene, denials)
}

/// Waits until something is so, or the daemon has ended before it was.
fn until(so: impl Fn() -> bool, daemon: &mut Daemon) -> Outcome {
    let deadline = Instant::now() + 4 * limit();
    while !so() {
        ensure!(
            Instant::now() < deadline && daemon.runs()?,
            "it did not come so far:\n{}",
            crate::harness::daemon::log_text()
        );
        std::thread::yield_now();
    }
    Ok(())
}
