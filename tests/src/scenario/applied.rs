//! Policies that are applied and deleted over the control socket.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::control::{ask, metric, request};
use crate::harness::policy::{PolicyFile, allowing, change};
use crate::harness::{EACCES, Outcome, Scenario, Scene};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    an_applied_policy_is_in_force_over_a_restart_and_a_refused_one_changes_nothing,
    agents_of_a_policy_that_is_deleted_may_do_nothing_and_are_never_free,
    a_delete_that_a_killed_daemon_had_begun_is_finished_by_the_next,
    a_name_is_a_files_or_an_applied_policys,
];

/// Where the daemon keeps them.
const DIRECTORY: &str = "/var/lib/agent-monitor/applied";

/// An applied policy, gone at the end.
pub struct Applied(pub &'static str);

impl Applied {
    /// Applies a document under this name: the status and the answer.
    pub fn put(&self, text: &str) -> anyhow::Result<(u16, Value)> {
        let body = json!({"path": "sent.yaml", "text": text}).to_string();
        let (status, answer) = request("PUT", &format!("/v1/policies/{}", self.0), &body)?;
        Ok((status, serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))?))
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        let _ = request("DELETE", &format!("/v1/policies/{}", self.0), "");
    }
}

fn an_applied_policy_is_in_force_over_a_restart_and_a_refused_one_changes_nothing(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let (read, write) = (step!("open", file, "r"), step!("open", file, "w"));
    let word = "scenario-applied";
    let applied = Applied(word);
    let (status, answer) = applied.put(&allowing(word, "read", &file))?;
    ensure!(status == 201 && answer["change"] == "loaded", "{status}: {answer}");
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let mut process = scene.process()?;
    scene.bind_named(word, json!({}))?;
    process.works(&read, "bound")?;
    process.expect(&write, EACCES, "bound")?;
    let refusals = || metric("agent_monitor_policy_changes_total", &["action=\"refused\""]);
    let before = refusals()?;
    let (status, answer) = applied.put(&allowing(word, "reed", &file))?;
    ensure!(status == 422 && answer["error"].to_string().contains("sent.yaml:"), "{status}: {answer}");
    scene.records.wait(scene.start, word, &change(word, "refused"))?;
    ensure!(refusals()? == before + 1, "{} refusals are counted after {before}", refusals()?);
    process.works(&read, "after a refused one")?;
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    process.works(&read, "with the next daemon")?;
    process.expect(&write, EACCES, "with the next daemon")?;
    let (status, answer) = applied.put(&allowing(word, "write", &file))?;
    ensure!(status == 200 && answer["change"] == "replaced", "{status}: {answer}");
    process.works(&write, "after the next one")?;
    process.expect(&read, EACCES, "after the next one")?;
    let (status, answer) = applied.put(&allowing(word, "write", &file))?;
    ensure!(status == 200 && answer["change"] == "unchanged", "{status}: {answer}");
    Ok(())
}

fn agents_of_a_policy_that_is_deleted_may_do_nothing_and_are_never_free(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let read = step!("open", file, "r");
    let word = "scenario-deleted";
    let applied = Applied(word);
    applied.put(&allowing(word, "read", &file))?;
    let mut process = scene.process()?;
    let id = scene.bind_named(word, json!({}))?;
    process.works(&read, "bound")?;
    let answer = ask("DELETE", &format!("/v1/policies/{word}"), &Value::Null)?;
    ensure!(answer["agents_emptied"] == 1, "{answer}");
    process.expect(&read, EACCES, "after its policy was deleted")?;
    scene.records.wait(scene.start, word, &change(word, "removed"))?;
    let empty = json!({"type": "agent", "action": "bound", "policy": {"name": "empty"}, "agent": {"id": id}});
    scene.records.wait(scene.start, &format!("\"{id}\""), &empty)?;
    let agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    ensure!(agent["policy"] == "empty", "{agent}");
    let (status, answer) = request("GET", &format!("/v1/policies/{word}"), "")?;
    ensure!(status == 404, "it is still there: {status}: {answer}");
    let kept = Path::new(DIRECTORY).join("scenario-deleted.yaml");
    ensure!(!kept.exists(), "{} is still there", kept.display());
    // No daemon that comes later gives it back.
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    process.expect(&read, EACCES, "with the next daemon").map(drop)
}

/// The file goes first, and then the agents lose the policy; here the daemon ends between the two.
fn a_delete_that_a_killed_daemon_had_begun_is_finished_by_the_next(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let read = step!("open", file, "r");
    let word = "scenario-cut-off";
    let applied = Applied(word);
    applied.put(&allowing(word, "read", &file))?;
    let mut process = scene.process()?;
    let id = scene.bind_named(word, json!({}))?;
    scene.daemon.kill();
    fs::remove_file(Path::new(DIRECTORY).join("scenario-cut-off.yaml"))?;
    process.works(&read, "while no daemon runs")?;
    scene.daemon.start_again(&[])?;
    process.expect(&read, EACCES, "with the next daemon")?;
    let removed = scene.records.wait(scene.start, word, &change(word, "removed"))?;
    ensure!(removed["messages"].to_string().contains("deleted"), "it does not say why: {removed}");
    let agent = ask("GET", &format!("/v1/agents/{id}"), &Value::Null)?;
    ensure!(agent["policy"] == "empty", "{agent}");
    for method in ["GET", "DELETE"] {
        let (status, answer) = request(method, &format!("/v1/policies/{word}"), "")?;
        ensure!(status == 404, "{method} gives {status}: {answer}");
    }
    // It is told once, and the name is free.
    let (status, answer) = applied.put(&allowing(word, "write", &file))?;
    ensure!(status == 201, "{status}: {answer}");
    process.expect(&read, EACCES, "as one that lost its policy")?;
    process.expect(&step!("open", file, "w"), EACCES, "as one that lost its policy")?;
    scene.records.read()?;
    let told = scene.records.count(scene.start, word, &change(word, "removed"))?;
    ensure!(told == 1, "it was told {told} times");
    Ok(())
}

fn a_name_is_a_files_or_an_applied_policys(scene: &mut Scene<'_>) -> Outcome {
    let (first, second) = (scene.file("first", "1"), scene.file("second", "2"));
    let word = "scenario-named";
    let named = PolicyFile("scenario-named.yaml");
    named.write(&allowing(word, "read", &first))?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let applied = Applied(word);
    let (status, answer) = applied.put(&allowing(word, "read", &second))?;
    ensure!(status == 409 && answer["error"].to_string().contains("scenario-named.yaml"), "{status}: {answer}");
    let (status, answer) = request("DELETE", &format!("/v1/policies/{word}"), "")?;
    ensure!(status == 409, "{status}: {answer}");
    fs::remove_file(named.path())?;
    scene.records.wait(scene.start, word, &change(word, "removed"))?;
    let (status, answer) = applied.put(&allowing(word, "read", &second))?;
    ensure!(status == 201, "{status}: {answer}");
    named.write(&allowing(word, "read", &first))?;
    let refused = json!({"type": "policy", "action": "refused", "source": named.path()});
    scene.records.wait(scene.start, word, &refused)?;
    let shown = ask("GET", &format!("/v1/policies/{word}"), &Value::Null)?;
    ensure!(shown["source"].to_string().contains("/applied/"), "{shown}");
    Ok(())
}
