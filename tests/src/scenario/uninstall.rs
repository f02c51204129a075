//! What guards the node is gone: removed by `daemon --uninstall`, lost in a reboot, or never there.

use std::fs;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;

use super::starting::{loading, nothing_is_attached};
use super::survival::{PINS, POLICY};
use crate::harness::control;
use crate::harness::daemon::{agent_states, log_text, uninstall};
use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Scenario, Scene};
use crate::trigger::hammer::STEP;
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Anew:
    uninstalling_ends_enforcement_and_says_for_whom,
    what_an_agent_may_works_all_the_while_that_enforcement_ends,
    what_is_known_of_agents_before_a_reboot_binds_nothing_after_it,
];

fn uninstalling_ends_enforcement_and_says_for_whom(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let mut process = scene.process()?;
    let id = scene.bind(POLICY)?;
    let refused = uninstall().err().context("a daemon that runs was uninstalled")?;
    ensure!(format!("{refused:#}").contains(&format!("pid {}", scene.daemon.pid())), "it said {refused:#}");
    process.expect(&step, EACCES, "after uninstalling was refused")?;
    scene.daemon.end()?;
    process.expect(&step, EACCES, "without a daemon")?;
    let said = uninstall()?;
    ensure!(
        said.contains("removed") && said.contains(&format!("agent {id} is not guarded any more")),
        "it said {said}"
    );
    // The kernel frees links some moments after their names are gone.
    let deadline = Instant::now() + limit();
    while process.run(&step)?.0 != 0 {
        ensure!(Instant::now() < deadline, "it is still denied");
    }
    let left = fs::read_dir(PINS)?.count();
    ensure!(left == 0, "{left} directories are left in {PINS}");
    let stopped = json!({"type": "monitor", "action": "stopped", "enforcement": "none"});
    scene.records.wait(scene.start, &id, &stopped)?;
    ensure!(uninstall()?.contains("nothing is pinned"), "something was there to be removed twice");
    cut_off_while_it_loads()?;
    process.works(&step, "after a daemon was cut off")?;
    // The next daemon starts anew, and knows nobody.
    scene.daemon.start_again(&[])?;
    scene.agent = None;
    let (status, _) = control::request("GET", &format!("/v1/agents/{id}"), "")?;
    ensure!(status == 404, "the agent is known: {status}");
    process.works(&step, "unbound").map(drop)
}

/// Until the programs are gone what is forbidden fails; at no time what is allowed does.
fn what_an_agent_may_works_all_the_while_that_enforcement_ends(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind(POLICY)?;
    let (allowed, stop) = (scene.file("allowed", "a"), scene.path("stop"));
    let step = step!("hammer", stop, "/none", allowed, "-", "127.0.0.2:9", "allowed-alone");
    process.send(&step)?;
    scene.daemon.end()?;
    let said = uninstall();
    fs::write(&stop, "")?;
    let (errno, rounds) = process.answer(&step)?;
    ensure!(said?.contains("removed"), "nothing was pinned");
    ensure!(errno == 0 && rounds > 0, "step {} gave errno {}, after {rounds} rounds", errno / STEP, errno % STEP);
    scene.daemon.start_again(&[])?;
    scene.agent = None;
    Ok(())
}

/// A reboot takes the pins, and gives numbers of cgroups again: what the state says of one is of another.
fn what_is_known_of_agents_before_a_reboot_binds_nothing_after_it(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let step = step!("open", file, "r");
    let mut process = scene.process()?;
    let id = scene.bind(POLICY)?;
    process.expect(&step, EACCES, "before the reboot")?;
    scene.daemon.kill();
    ensure!(agent_states()?.iter().any(|(_, state)| state.to_string().contains(&id)), "the state does not know {id}");
    for build in fs::read_dir(PINS)? {
        let build = build?.path();
        for kind in ["links", "programs", "maps"] {
            fs::read_dir(build.join(kind))?.try_for_each(|pin| fs::remove_file(pin?.path()))?;
            fs::remove_dir(build.join(kind))?;
        }
        fs::remove_dir(build)?;
    }
    let start = scene.records.lines.len();
    scene.daemon.start_again(&[])?;
    scene.agent = None;
    process.works(&step, "in the cgroup that has the number of the agent's")?;
    let (status, _) = control::request("GET", &format!("/v1/agents/{id}"), "")?;
    ensure!(status == 404, "the agent is known: {status}");
    ensure!(!agent_states()?.iter().any(|(_, state)| state.to_string().contains(&id)), "the state knows {id}");
    let told = scene.records.about(start, &format!("\"{id}\"")).count();
    ensure!(told == 0, "{told} records are about an agent of an earlier boot");
    Ok(())
}

/// A daemon whose programs are loaded by a process that is killed says so, and leaves nothing that is attached.
fn cut_off_while_it_loads() -> Outcome {
    let mut daemon = loading(&[])?.daemon;
    let children = format!("/proc/{0}/task", daemon.pid());
    let mut killed = 0;
    for task in fs::read_dir(children)? {
        for child in fs::read_to_string(task?.path().join("children"))?.split_whitespace() {
            // SAFETY: takes two numbers; the child's parent has not waited for it, because it waits for its answer still.
            unsafe { libc::kill(child.parse()?, libc::SIGKILL) };
            killed += 1;
        }
    }
    ensure!(killed == 1, "{killed} processes loaded");
    let status = daemon.wait()?;
    ensure!(!status.success() && log_text().contains("did not say what it has loaded"), "{status}: {}", log_text());
    nothing_is_attached()
}
