//! Which cgroups are bound, and which are not: one that lingers, one whose name is no text, those that are made while a
//! tree is bound.

use anyhow::ensure;
use serde_json::json;

use crate::harness::cgroup::{self, Cgroup};
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_restarted_daemon_binds_nothing_but_the_agents_cgroups_where_one_is_gone_and_lingers,
];

/// A cgroup that is removed stays bound until its last process is reaped. Nobody can find a path for it any more.
fn a_restarted_daemon_binds_nothing_but_the_agents_cgroups_where_one_is_gone_and_lingers(
    scene: &mut Scene<'_>,
) -> Outcome {
    let file = scene.file("allowed", "a");
    let (read, write) = (step!("open", file, "r"), step!("open", file, "w"));
    let unbound = Cgroup::make("/scenarios-unbound/below")?;
    let mut outsiders = [Process::start()?, Process::start_in(&unbound.directory())?];
    let mut agent = scene.process()?;
    scene.bind("files:\n  - {allow: [read], paths: [\"$W/allowed\"]}\n")?;
    let gone = Cgroup::make("/agents.slice/locked/scenario-gone")?;
    let id = cgroup::id(&gone.directory())?;
    let about = format!("\"cgroup_id\":{id}");
    scene.records.wait(scene.start, &about, &json!({"type": "agent", "action": "started"}))?;
    let zombie = Process::start_in(&gone.directory())?;
    cgroup::remove(&gone.directory())?;
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    for outsider in &mut outsiders {
        outsider.works(&write, "as an outsider, with the next daemon")?;
    }
    agent.works(&read, "with the next daemon")?;
    agent.expect(&write, EACCES, "with the next daemon")?;
    let known = crate::harness::control::ask("GET", "/v1/agents", &serde_json::Value::Null)?;
    let known = known.as_array().into_iter().flatten().find(|one| one["cgroup_id"] == id).cloned();
    let known = known.unwrap_or_default();
    ensure!(known["cgroup"].is_null() && known["origin"] == "below-root", "the one that is gone is {known}");
    // Once its process is reaped it goes, and so does its agent.
    drop(zombie);
    let exited = json!({"type": "agent", "action": "exited", "agent": {"cgroup": null}});
    scene.records.wait(scene.start, &about, &exited)?;
    scene.unbind_after(1)
}
