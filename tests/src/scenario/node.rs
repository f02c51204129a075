//! The node's daemon: its policy directory, its control socket, its metrics, its records under a flood.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::control::{self, ask, metric, request};
use crate::harness::policy::{PolicyFile, allowing, change};
use crate::harness::{EACCES, Outcome, Scenario, Scene};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_broken_policy_gives_all_errors_and_changes_nothing,
    hostile_requests_are_refused_and_change_nothing,
    metrics_count_what_was_denied,
    the_daemon_says_that_it_is_alive_and_ready,
    every_hook_of_the_table_is_attached,
    a_flood_of_denials_is_counted_to_the_last,
    repeats_are_told_with_their_number_and_hide_nothing,
];

fn a_broken_policy_gives_all_errors_and_changes_nothing(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let named = PolicyFile("scenario-swapped.yaml");
    let word = "scenario-swapped";
    let with = |access: &str| allowing(word, access, &file);
    named.write(&with("read"))?;
    scene.records.wait(scene.start, word, &change(word, "loaded"))?;
    let mut process = scene.process()?;
    scene.bind_named(word, json!({}))?;
    process.works(&step!("open", file, "r"), "bound")?;
    process.expect(&step!("open", file, "w"), EACCES, "bound")?;
    // Broken in three places: nothing changes.
    let broken = "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: scenario-swapped}\nspec:\n  fils: []\n  files:\n    - {allow: [reed], paths: [\"relative\"]}\n";
    named.write(broken)?;
    let refused = scene.records.wait(scene.start, word, &json!({"type": "policy", "action": "refused"}))?;
    let messages = refused["messages"].to_string();
    ensure!(["fils", "reed", "relative"].iter().all(|wrong| messages.contains(wrong)), "not all is named: {messages}");
    process.works(&step!("open", file, "r"), "after a broken policy")?;
    process.expect(&step!("open", file, "w"), EACCES, "after a broken policy")?;
    // The command line says the same, each with its place.
    let checked = std::process::Command::new("agent-monitor")
        .args(["policy", "check"])
        .arg("/run/scenarios/scenario-swapped.yaml")
        .output()?;
    let text = String::from_utf8_lossy(&checked.stderr);
    ensure!(checked.status.code() == Some(1), "policy check ended with {}", checked.status);
    ensure!(text.contains(":5:") && text.contains(":7:"), "places are missing: {text}");
    // A good one is in force for the agent that runs.
    named.write(&with("write"))?;
    scene.records.wait(scene.start, word, &change(word, "replaced"))?;
    process.works(&step!("open", file, "w"), "after the swap")?;
    process.expect(&step!("open", file, "r"), EACCES, "after the swap").map(drop)
}

fn hostile_requests_are_refused_and_change_nothing(_scene: &mut Scene<'_>) -> Outcome {
    let before = ask("GET", "/v1/status", &Value::Null)?;
    let head = "POST /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let bytes: [Vec<u8>; 6] = [
        b"\x00\xff\xfe\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        format!("{head}Content-Length: 99999999999999999999\r\n\r\n").into_bytes(),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nZZZ\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)).into_bytes(),
        format!("{head}X: {}\r\n\r\n", "b".repeat(200_000)).into_bytes(),
    ];
    for sent in bytes {
        let answer = control::raw(&sent)?;
        // What is not even HTTP may also be answered by hanging up.
        if !answer.is_empty() {
            let (status, _) = control::parse(&answer)?;
            ensure!(
                (400..500).contains(&status),
                "{:?} gave {status}",
                String::from_utf8_lossy(&sent).chars().take(60).collect::<String>()
            );
        }
    }
    let requests = [
        ("POST", "/v1/agents", "{", 400),
        ("POST", "/v1/agents", "[]", 422),
        ("POST", "/v1/agents", "{\"polcy\": \"base\"}", 422),
        ("POST", "/v1/agents", "{}", 422),
        ("POST", "/v1/agents", "{\"policy\": \"no-such-policy\"}", 404),
        ("POST", "/v1/agents", "{\"policy\": \"locked\", \"mode\": \"learn\"}", 422),
        ("POST", "/v1/agents", "{\"policy\": \"locked\", \"cgroup\": \"/../../etc\"}", 404),
        ("POST", "/v1/agents", "{\"policy\": \"locked\", \"cgroup\": \"/\"}", 409),
        ("POST", "/v1/agents", "{\"policy\": \"locked\", \"name\": \"a\\nb\"}", 422),
        ("DELETE", "/v1/agents/no-such-agent", "", 404),
        ("DELETE", "/v1/agents/agents-root", "", 409),
        ("GET", "/v1/agents/%2e%2e%2f%ff", "", 400),
        ("GET", "/v2/agents", "", 404),
        ("PUT", "/v1/status", "", 405),
        ("GET", "/v1/events?denied=perhaps", "", 400),
    ];
    for (method, path, body, expected) in requests {
        let (status, answer) = request(method, path, body)?;
        ensure!(status == expected, "{method} {path} {body} gave {status}, not {expected}: {answer}");
    }
    let after = ask("GET", "/v1/status", &Value::Null)?;
    ensure!(before["agents"] == after["agents"] && after["ready"] == true, "something changed: {before} {after}");
    Ok(())
}

fn metrics_count_what_was_denied(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let mut process = scene.process()?;
    scene.bind("files:\n  - {deny: [read], paths: [\"$W/file\"]}\n  - {allow: [all], paths: [\"/**\"]}\n")?;
    let counts = || -> anyhow::Result<[u64; 4]> {
        Ok([
            metric("agent_monitor_denied_total", &["class=\"file\"", "reason=\"deny_rule\""])?,
            metric("agent_monitor_denied_total", &["class=\"network\"", "reason=\"no_rule\""])?,
            metric("agent_monitor_operations_total", &["class=\"file\"", "verdict=\"deny\""])?,
            metric("agent_monitor_operations_total", &["class=\"file\"", "verdict=\"allow\""])?,
        ])
    };
    let before = counts()?;
    for _ in 0..3 {
        process.expect(&step!("open", file, "r"), EACCES, "bound")?;
        process.works(&step!("open", file, "w"), "bound")?;
    }
    process.expect(&step!("socket", "2", "1", "0"), EACCES, "bound")?;
    let after = counts()?;
    let grown = [0, 1, 2, 3].map(|index: usize| after[index] - before[index]);
    ensure!(grown == [3, 1, 3, 3], "the counters grew by {grown:?}");
    let agents = metric("agent_monitor_agents", &["policy=\"scenario\"", "mode=\"enforce\""])?;
    ensure!(agents == 1, "{agents} agents have the policy of the scenario");
    Ok(())
}

fn the_daemon_says_that_it_is_alive_and_ready(_scene: &mut Scene<'_>) -> Outcome {
    ensure!(control::metrics("/healthz")? == (200, "ok\n".to_owned()), "not alive");
    let (status, body) = control::metrics("/readyz")?;
    ensure!(status == 200, "not ready: {body}");
    ensure!(metric("agent_monitor_enforcement_state", &["state=\"full\""])? == 1, "not all is enforced");
    let passed = metric("agent_monitor_selftest_passed", &[])?;
    ensure!(passed == 4, "{passed} self-tests passed, of 4");
    Ok(())
}

fn every_hook_of_the_table_is_attached(_scene: &mut Scene<'_>) -> Outcome {
    let status = ask("GET", "/v1/status", &Value::Null)?;
    let hooks = status["hooks"].as_array().context("the status tells of hooks")?;
    // A hook that this kernel may lack, and one that no bound policy asks for, say so.
    let well =
        |hook: &&Value| ["attached", "not-needed", "on-request"].contains(&hook["state"].as_str().unwrap_or_default());
    let detached: Vec<&Value> = hooks.iter().filter(|hook| !well(hook)).collect();
    ensure!(!hooks.is_empty() && detached.is_empty(), "not attached: {detached:?}");
    let cgroups = ["cgroup_mkdir", "cgroup_rmdir", "cgroup_release"];
    for name in ["connect4", "connect6", "sendmsg4", "sendmsg6", "bind4", "bind6"].iter().chain(&cgroups) {
        let attached = metric("agent_monitor_hook_attached", &[&format!("hook=\"{name}\"")])?;
        ensure!(attached == 1, "{name} is not attached by the metrics");
    }
    Ok(())
}

/// Each of something else, so that the ring may overflow.
fn a_flood_of_denials_is_counted_to_the_last(scene: &mut Scene<'_>) -> Outcome {
    const FLOOD: i64 = 40_000;
    let noise = scene.path("noise");
    let mut process = scene.process()?;
    let id = scene.bind("files:\n  - {allow: [read], paths: [\"/none\"]}\n")?;
    // Nobody reads meanwhile.
    scene.daemon.freeze();
    let denied = process.works(&step!("flood", noise, FLOOD.to_string(), FLOOD.to_string()), "bound")?;
    scene.daemon.thaw();
    ensure!(denied == FLOOD, "{denied} of {FLOOD} were denied");
    let counts = scene.unbind()?;
    ensure!(counts["lost"].as_u64() > Some(0), "the rings held it all, so nothing was shown: {counts}");
    // The log agrees with the counters, and has a record for every loss.
    let word = format!("\"{id}\"");
    scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
    scene.records.account(scene.start, &word, &counts, FLOOD as u64)?;
    // Numbers have no gap.
    let mut expected = None;
    for line in &scene.records.lines {
        let record = head(line).with_context(|| format!("no number: {line}"))?;
        ensure!(expected.is_none_or(|expected| record == expected), "{record} came where {expected:?} was due");
        expected = Some(record + 1);
    }
    Ok(())
}

/// Repeats are counted where they happen, and none of them takes the room of something else.
fn repeats_are_told_with_their_number_and_hide_nothing(scene: &mut Scene<'_>) -> Outcome {
    const FLOOD: i64 = 40_000;
    let (noise, needle) = (scene.path("noise"), scene.file("needle", "n"));
    let mut process = scene.process()?;
    let id = scene.bind("files:\n  - {allow: [read], paths: [\"/none\"]}\n")?;
    scene.daemon.freeze();
    let flood = |names: i64| step!("flood", noise, (FLOOD / 2).to_string(), names.to_string());
    let first = process.works(&flood(1), "bound")?;
    process.expect(&step!("open", needle, "r"), EACCES, "bound")?;
    let second = process.works(&flood(10), "bound")?;
    scene.daemon.thaw();
    ensure!(first + second == FLOOD, "{} of {FLOOD} were denied", first + second);
    scene.record(&json!({"operation": "file_open", "object": {"path": needle}, "count": 1}))?;
    let most = json!({"operation": "path_mknod", "object": {"path": scene.path("noise0")}, "process": {"pid": process.pid()},
        "count": FLOOD / 2 - 1 + FLOOD / 20});
    let record = scene.record(&most)?;
    let times = [&record["first_time"], &record["time"]].map(|time| time.as_str().unwrap_or_default());
    ensure!(!times[0].is_empty() && times[0] < times[1], "the times are {times:?}");
    let counts = scene.unbind()?;
    // One for each name, and one with its repeats; the needle.
    ensure!(counts["written"] == 21 && counts["lost"] == 0, "counted are {counts}");
    let word = format!("\"{id}\"");
    scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
    scene.records.account(scene.start, &word, &counts, FLOOD as u64 + 1)
}

/// The number of a line. Not parsed as a whole, because there are thousands.
fn head(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("\"seq\":")?;
    rest.split(',').next()?.parse().ok()
}
