//! Bindings that were made for a time.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::control::{ask, metric, request};
use crate::harness::daemon::agent_states;
use crate::harness::{EACCES, Outcome, Scenario, Scene};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_binding_whose_time_is_over_leaves_the_agent_with_nothing_until_it_is_renewed,
    a_time_that_was_over_while_no_daemon_ran_is_over_when_one_starts,
    a_binding_without_an_end_gets_none_by_being_asked_for_again,
];

/// What a binding that allows to read everything is asked for by.
const READ: &str = "files:\n  - {allow: [read], paths: [\"/**\"]}\n";

/// Where the state keeps the agent with this id.
fn state_of(id: &str) -> anyhow::Result<(std::path::PathBuf, Value)> {
    let found = agent_states()?.into_iter().find(|(_, state)| state["id"] == id);
    found.with_context(|| format!("the state has no agent {id}"))
}

fn a_binding_whose_time_is_over_leaves_the_agent_with_nothing_until_it_is_renewed(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let read = step!("open", file, "r");
    let before = metric("agent_monitor_bindings_expired_total", &[])?;
    let mut process = scene.process()?;
    let id = scene.bind_as("scenario-limited", READ, json!({"ttl_seconds": 2, "labels": {"a": "b"}}))?;
    process.works(&read, "bound for a time")?;
    let bound = scene.record(&json!({"type": "agent", "action": "bound"}))?;
    let expired = json!({"type": "agent", "action": "expired", "policy": {"name": "empty"}, "mode": "enforce"});
    let expired = scene.record(&expired)?;
    ensure!(bound["expires"].is_string() && bound["expires"] == expired["expires"], "{bound} {expired}");
    process.expect(&read, EACCES, "after its time")?;
    let agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    ensure!(agent["expired"] == true && agent["policy"] == "empty" && agent["labels"]["a"] == "b", "{agent}");
    ensure!(metric("agent_monitor_bindings_expired_total", &[])? == before + 1, "it is not counted");
    ensure!(ask("GET", "/v1/status", &Value::Null)?["agents_expired"] == 1, "the status does not say so");
    let again = scene.bind_as("scenario-limited", READ, json!({"ttl_seconds": 1000}))?;
    ensure!(again == id, "it was renewed as {again}");
    process.works(&read, "bound for a time again")?;
    let agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    ensure!(agent["expired"] == false && agent["labels"]["a"] == "b", "{agent}");
    scene.unbind()?;
    process.works(&read, "unbound").map(drop)
}

fn a_time_that_was_over_while_no_daemon_ran_is_over_when_one_starts(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let read = step!("open", file, "r");
    let mut process = scene.process()?;
    let id = scene.bind_as("scenario-limited", READ, json!({"ttl_seconds": 1000}))?;
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    process.works(&read, "with the next daemon, before its time")?;
    scene.daemon.kill();
    // As if the time had come: nothing else of the state changes.
    let (path, mut state) = state_of(&id)?;
    state["limit"]["boot_ns"] = json!(1);
    fs::write(&path, state.to_string())?;
    process.works(&read, "while no daemon runs")?;
    scene.daemon.start_again(&[])?;
    process.expect(&read, EACCES, "as soon as the next daemon is ready")?;
    scene.record(&json!({"type": "agent", "action": "expired"}))?;
    // It is told once.
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    process.expect(&read, EACCES, "with the daemon after that")?;
    scene.records.read()?;
    let word = format!("\"id\":\"{id}\"");
    let told = scene.records.about(scene.start, &word).flatten().filter(|record| record["action"] == "expired").count();
    ensure!(told == 1, "it was told {told} times");
    Ok(())
}

fn a_binding_without_an_end_gets_none_by_being_asked_for_again(scene: &mut Scene<'_>) -> Outcome {
    let id = scene.bind(READ)?;
    let path = scene.cgroup.path.clone();
    let ask_again = |ttl: u64| {
        request("POST", "/v1/agents", &json!({"policy": "locked", "cgroup": path, "ttl_seconds": ttl}).to_string())
    };
    let (status, answer) = ask_again(5)?;
    ensure!(status == 409 && answer.contains(&id), "{status}: {answer}");
    for ttl in [0, u64::MAX] {
        let (status, answer) = ask_again(ttl)?;
        ensure!(status == 422 && answer.contains("ttl_seconds"), "{status}: {answer}");
    }
    let agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    ensure!(agent["expires"].is_null(), "{agent}");
    scene.unbind().context("unbind").map(drop)
}
