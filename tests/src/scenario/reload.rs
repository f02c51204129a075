//! What is in force after the daemon was started again, or after a policy file changed, is what this daemon makes of the
//! documents and of its own settings: never what an earlier one left.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cgroup::Cgroup;
use crate::harness::control::{self, ask, metric};
use crate::harness::daemon::{Directory, PLACE};
use crate::harness::policy::{ALL as EVERYTHING, DIRECTORY, PolicyFile, allowing, change, document};
use crate::harness::records::Records;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    agents_that_were_taken_over_can_not_touch_the_log_of_the_next_daemon,
    no_policy_lets_an_agent_touch_the_configuration_that_was_named,
    a_daemon_killed_while_it_replaces_a_policy_leaves_no_older_one_in_force,
    a_policy_file_that_breaks_while_no_daemon_runs_leaves_its_policy_in_force,
    a_policy_that_needs_values_now_is_bound_to_nobody_without_them,
    a_policy_that_can_not_be_put_in_force_is_refused_and_shown,
    a_policy_file_that_was_away_for_a_moment_is_in_force_for_the_agents_that_kept_its_policy,
    a_directory_that_takes_the_place_of_the_policy_directory_is_read_and_watched,
];

/// Does something beside a daemon with these settings, which takes over from the scenario's and gives back to it.
fn with_settings(scene: &mut Scene<'_>, settings: &str, act: impl FnOnce(&mut Scene<'_>, &Path) -> Outcome) -> Outcome {
    let file = Path::new(PLACE).join("reload.toml");
    fs::write(&file, settings)?;
    scene.daemon.end()?;
    let done = scene.daemon.start_again(&["--config", &file.to_string_lossy()]).and_then(|()| act(scene, &file));
    let ended = scene.daemon.end().map(drop);
    scene.daemon.start_again(&[])?;
    done.and(ended)
}

/// A denial that no rule can lift, of an agent of this policy.
fn denied(policy: &str, operation: &str, access: &str, path: &Path) -> Value {
    json!({"type": "operation", "operation": operation, "access": [access], "object": {"path": path}, "verdict": "deny",
           "reason": "builtin:monitor", "errno": "EACCES", "policy": {"name": policy}})
}

/// A process in a new cgroup below that of a policy of the directory.
fn newcomer(policy: &str, name: &str) -> Result<(Cgroup, Process)> {
    let cgroup = Cgroup::make(&format!("/agents.slice/{policy}/{name}"))?;
    let process = Process::start_in(&cgroup.directory())?;
    Ok((cgroup, process))
}

/// Policies that a request brought, that lie in the directory, and whose file is gone: all allow everything.
fn agents_that_were_taken_over_can_not_touch_the_log_of_the_next_daemon(scene: &mut Scene<'_>) -> Outcome {
    let (kept, gone) = (PolicyFile("scenario-kept.yaml"), PolicyFile("scenario-gone.yaml"));
    let names = ["scenario", "scenario-kept", "scenario-gone"];
    for (file, name) in [(&kept, names[1]), (&gone, names[2])] {
        file.write(&document(name, EVERYTHING, Path::new("/")))?;
        scene.records.wait(scene.start, name, &change(name, "loaded"))?;
    }
    let (_first, kept_process) = newcomer(names[1], "agent")?;
    let (_second, gone_process) = newcomer(names[2], "agent")?;
    let mut processes = [scene.process()?, kept_process, gone_process];
    scene.bind(EVERYTHING)?;
    let log = Path::new(PLACE).join("reload.jsonl");
    fs::write(&log, "")?;
    for process in &mut processes {
        process.works(&step!("open", log, "w"), "while it is nobody's log")?;
    }
    drop(gone);
    scene.records.wait(scene.start, names[2], &change(names[2], "removed"))?;
    let all = ask("GET", "/v1/policies", &Value::Null)?;
    let is_removed = |one: &Value| one["name"] == names[2] && one["state"] == "removed";
    ensure!(all.as_array().into_iter().flatten().any(is_removed), "{} is not removed: {all}", names[2]);
    with_settings(scene, &format!("audit_log = {log:?}\n"), |_, _| {
        let mut records = Records::open(&log)?;
        for (process, name) in processes.iter_mut().zip(names) {
            process.expect(&step!("open", log, "w"), EACCES, &format!("under {name}"))?;
            process.expect(&step!("truncate", log, "0"), EACCES, &format!("under {name}"))?;
            records.wait(0, name, &denied(name, "file_open", "write", &log))?;
            records.wait(0, name, &denied(name, "path_truncate", "write", &log))?;
        }
        Ok(())
    })?;
    for process in &mut processes {
        process.works(&step!("open", log, "w"), "when it is nobody's log any more")?;
    }
    Ok(())
}

fn no_policy_lets_an_agent_touch_the_configuration_that_was_named(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    let log = Path::new(PLACE).join("reload.jsonl");
    fs::write(&log, "")?;
    let settings = format!("audit_log = {log:?}\n");
    with_settings(scene, &settings, |scene, file| {
        scene.bind(EVERYTHING)?;
        let mut records = Records::open(&log)?;
        process.expect(&step!("open", file, "w"), EACCES, "bound")?;
        records.wait(0, "reload.toml", &denied("scenario", "file_open", "write", file))?;
        process.expect(&step!("unlink", file), EACCES, "bound")?;
        records.wait(0, "reload.toml", &denied("scenario", "path_unlink", "delete", file))?;
        ensure!(fs::read_to_string(file)? == settings, "it was changed");
        Ok(())
    })
}

/// The state and the kernel are written one after the other; here the daemon is killed between the two, and the next one
/// finds the state of the new policy and the image of the old one.
fn a_daemon_killed_while_it_replaces_a_policy_leaves_no_older_one_in_force(scene: &mut Scene<'_>) -> Outcome {
    let (old, new) = (scene.file("old", "o"), scene.file("new", "n"));
    let (named, word) = (PolicyFile("scenario-stricter.yaml"), "scenario-stricter");
    let with = |path: &Path| allowing(word, "read", path);
    named.write(&with(&old))?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let mut process = scene.process()?;
    scene.bind_named(word, json!({}))?;
    process.works(&step!("open", old, "r"), "under the first policy")?;
    scene.daemon.freeze();
    scene.daemon.kill();
    named.write(&with(&new))?;
    let mut written = 0;
    for entry in fs::read_dir("/var/lib/agent-monitor/policies")?.flatten() {
        let mut state: Value = serde_json::from_slice(&fs::read(entry.path())?)?;
        if state["text"] == with(&old) {
            state["text"] = with(&new).into();
            fs::write(entry.path(), state.to_string())?;
            written += 1;
        }
    }
    ensure!(written == 1, "{written} files of the state have the policy");
    process.works(&step!("open", old, "r"), "under what the kernel has")?;
    scene.daemon.start_again(&[])?;
    scene.records.wait(scene.start, word, &change(word, "replaced"))?;
    process.expect(&step!("open", old, "r"), EACCES, "under what the file says")?;
    process.works(&step!("open", new, "r"), "under what the file says").map(drop)
}

fn a_policy_file_that_breaks_while_no_daemon_runs_leaves_its_policy_in_force(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let (named, word) = (PolicyFile("scenario-breaks.yaml"), "scenario-breaks");
    named.write(&allowing(word, "read", &file))?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    scene.daemon.end()?;
    named.write(&document(word, "fils: []\n", Path::new("/")))?;
    scene.daemon.start_again(&[])?;
    let refused = scene.records.wait(scene.start, word, &change(word, "refused"))?;
    ensure!(refused["policy"]["generation"] == 1, "it does not say what stays in force: {refused}");
    let (_cgroup, mut process) = newcomer(word, "agent")?;
    process.works(&step!("open", file, "r"), "under the policy that stays")?;
    process.expect(&step!("open", file, "w"), EACCES, "under the policy that stays").map(drop)
}

fn a_policy_that_needs_values_now_is_bound_to_nobody_without_them(scene: &mut Scene<'_>) -> Outcome {
    let (first, second) = (scene.file("first", "1"), scene.file("second", "2"));
    let (named, word) = (PolicyFile("scenario-needs.yaml"), "scenario-needs");
    let with = |value: &str| {
        let spec = format!("variables: {{FILE: {value}}}\nfiles:\n  - {{allow: [read], paths: [\"${{FILE}}\"]}}\n");
        document(word, &spec, Path::new("/"))
    };
    named.write(&with(&first.to_string_lossy()))?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let (_old, mut old) = newcomer(word, "old")?;
    old.works(&step!("open", first, "r"), "below the policy's cgroup")?;
    named.write(&with("null"))?;
    let removed = scene.records.wait(scene.start, word, &change(word, "removed"))?;
    ensure!(removed["messages"].to_string().contains("needs values"), "it does not say why: {removed}");
    // Who had it keeps it; who comes has nothing.
    old.works(&step!("open", first, "r"), "as one that had it")?;
    let (_new, mut new) = newcomer(word, "new")?;
    new.expect(&step!("open", first, "r"), EACCES, "as one that comes")?;
    let empty = json!({"operation": "file_open", "object": {"path": first}, "policy": {"name": "empty"}});
    scene.records.wait(scene.start, "\"empty\"", &empty)?;
    let body = json!({"policy": word, "cgroup": scene.cgroup.path}).to_string();
    let (status, answer) = control::request("POST", "/v1/agents", &body)?;
    ensure!(status == 422 && answer.contains("--var"), "a request without values gave {status}: {answer}");
    let mut process = scene.process()?;
    scene.bind_named(word, json!({"FILE": second}))?;
    process.works(&step!("open", second, "r"), "with a value")?;
    process.expect(&step!("open", first, "r"), EACCES, "with a value").map(drop)
}

/// The name is the built-in policy's.
fn a_policy_that_can_not_be_put_in_force_is_refused_and_shown(scene: &mut Scene<'_>) -> Outcome {
    let refused = || metric("agent_monitor_policies", &["state=\"refused\""]);
    let before = refused()?;
    let named = PolicyFile("scenario-taken.yaml");
    let path = named.path();
    named.write(&document("empty", EVERYTHING, Path::new("/")))?;
    let record = json!({"type": "policy", "action": "refused", "source": path});
    let told = scene.records.wait(scene.start, "scenario-taken", &record)?;
    ensure!(told["messages"].to_string().contains("built-in"), "it does not say why: {told}");
    ensure!(refused()? == before + 1, "the metrics count {} refused policies, after {before}", refused()?);
    let all = ask("GET", "/v1/policies", &Value::Null)?;
    let all = all.as_array().context("policies are a list")?;
    let shown = all.iter().find(|one| one["source"] == json!(path)).context("the status does not show it")?;
    ensure!(shown["state"] == "refused" && shown["messages"] == told["messages"], "it is shown as {shown}");
    Ok(())
}

fn a_policy_file_that_was_away_for_a_moment_is_in_force_for_the_agents_that_kept_its_policy(
    scene: &mut Scene<'_>,
) -> Outcome {
    let file = scene.file("file", "f");
    let (read, write) = (step!("open", file, "r"), step!("open", file, "w"));
    let (named, word) = (PolicyFile("scenario-away.yaml"), "scenario-away");
    let lax = allowing(word, "read, write", &file);
    named.write(&lax)?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let mut process = scene.process()?;
    scene.bind_named(word, json!({}))?;
    let away = scene.path("away.yaml");
    let mut take_away = |scene: &mut Scene<'_>, from: usize| -> Outcome {
        fs::copy(named.path(), &away)?;
        fs::remove_file(named.path())?;
        scene.records.wait(from, word, &change(word, "removed"))?;
        process.works(&read, "while its file is away")?;
        process.works(&write, "while its file is away").map(drop)
    };
    take_away(scene, scene.start)?;
    // As it was: nothing has changed for anybody.
    let from = scene.records.lines.len();
    named.write(&fs::read_to_string(&away)?)?;
    let mut back = change(word, "loaded");
    back["policy"]["generation"] = json!(1);
    scene.records.wait(from, word, &back)?;
    take_away(scene, from)?;
    // Stricter, and found by a daemon that knows of the file that was removed only by its state.
    scene.daemon.kill();
    scene.daemon.start_again(&[])?;
    named.write(&allowing(word, "read", &file))?;
    let replaced = scene.records.wait(from, word, &change(word, "replaced"))?;
    let generation = &replaced["policy"]["generation"];
    ensure!(generation.as_u64() > Some(1), "the generation is not a new one: {replaced}");
    process.works(&read, "under the file that is back")?;
    process.expect(&write, EACCES, "under the file that is back")?;
    let policy = json!({"name": word, "generation": generation});
    scene.record(&json!({"operation": "file_open", "object": {"path": file}, "verdict": "deny", "policy": policy}))?;
    let all = ask("GET", "/v1/policies", &Value::Null)?;
    let shown: Vec<&Value> = all.as_array().into_iter().flatten().filter(|one| one["name"] == word).collect();
    ensure!(shown.len() == 1 && shown[0]["agents"] == 1, "the policy is there more than once: {shown:?}");
    Ok(())
}

fn a_directory_that_takes_the_place_of_the_policy_directory_is_read_and_watched(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let (read, write) = (step!("open", file, "r"), step!("open", file, "w"));
    let (named, word) = (PolicyFile("scenario-replaced.yaml"), "scenario-replaced");
    named.write(&allowing(word, "read, write", &file))?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let mut process = scene.process()?;
    scene.bind_named(word, json!({}))?;
    process.works(&write, "under the first directory")?;
    let beside = |ending: &str| Path::new(DIRECTORY).with_extension(ending);
    let (new, old) = (Directory(beside("new")), Directory(beside("old")));
    fs::create_dir(&new.0)?;
    for entry in fs::read_dir(DIRECTORY)?.flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), new.0.join(entry.file_name()))?;
    }
    fs::write(new.0.join("scenario-replaced.yaml"), allowing(word, "read", &file))?;
    fs::rename(DIRECTORY, &old.0)?;
    fs::rename(&new.0, DIRECTORY)?;
    let from = scene.records.lines.len();
    scene.records.wait(from, word, &change(word, "replaced"))?;
    process.works(&read, "under the other directory")?;
    process.expect(&write, EACCES, "under the other directory")?;
    // What changes in it is told from now on.
    let from = scene.records.lines.len();
    named.write(&allowing(word, "write", &file))?;
    scene.records.wait(from, word, &change(word, "replaced"))?;
    process.works(&write, "after a change of the other directory")?;
    process.expect(&read, EACCES, "after a change of the other directory").map(drop)
}
