//! `run --record`: what the file says is not for the agent to change, whoever records.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::policy::PolicyFile;
use crate::harness::{Outcome, Scenario, Scene, control, policy, records};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    no_policy_lets_an_agent_touch_the_file_of_its_records,
];

/// The one that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    no_policy_lets_an_agent_touch_the_file_of_its_records_without_a_daemon,
];

const PLACE: &str = "/tmp/scenarios-record";
const NAME: &str = "record-scenario";
const SPEC: &str = r#"
files:
  - {allow: [all], paths: ["$W", "$W/**"]}
  - {allow: [read, write], paths: ["/dev/null", "anon:pipe"]}
  - {allow: [read], paths: ["/proc/self/maps"]}
exec:
  - {allow: ["/bin/busybox", "/root/scenarios"]}
"#;
/// What the policy allows to be done to any file there, and to the directory.
const STEPS: &str =
    "open $F w;open $F r;truncate $F 0;unlink $F;rename $F $F.x;rename $0/w/own $F;link $F $0/w/l;rename $0/w $0/x";

/// The agent does to its records what it may do to other files.
fn denied(policy: &str) -> Outcome {
    let workspace = format!("{PLACE}/w");
    let _ = fs::remove_dir_all(&workspace);
    fs::create_dir_all(&workspace)?;
    fs::write(format!("{workspace}/own"), "own")?;
    let steps = STEPS.split(';').map(|step| format!("/root/scenarios once {step}\n"));
    let script = format!("F=$1\n{}", steps.collect::<String>());
    let run = |record: &str, tried: &str| {
        let mut run = Command::new("agent-monitor");
        // As it is typed: a name in the directory where one is.
        run.current_dir(&workspace).args(["run", "--policy", policy, "--record", record, "--"]);
        run.args(["/bin/busybox", "sh", "-c", &script, PLACE, tried]).output().context("start agent-monitor run")
    };
    let tried = run("records.jsonl", &format!("{workspace}/records.jsonl"))?;
    let said = String::from_utf8_lossy(&tried.stdout);
    let wanted: String =
        STEPS.split(';').filter_map(|step| step.split(' ').next()).map(|name| format!("{name} 13 0\n")).collect();
    ensure!(said == wanted, "the steps gave {said}{}", String::from_utf8_lossy(&tried.stderr));
    let text = fs::read_to_string(format!("{workspace}/records.jsonl"))?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let expected = json!({"type": "operation", "operation": "path_unlink", "verdict": "deny", "reason": "builtin:monitor",
        "object": {"path": format!("{workspace}/records.jsonl")}, "policy": {"name": NAME}});
    ensure!(lines.iter().any(|line| records::holds(line, &expected)), "no such record in {text}");
    // It is that file alone.
    let other = format!("{workspace}/other");
    fs::write(&other, "other")?;
    let allowed = run("records.jsonl", &other)?;
    let said = String::from_utf8_lossy(&allowed.stdout);
    ensure!(said.starts_with("open 0 0\nopen 0 0\ntruncate 0 0\nunlink 0 0\n"), "another file gave {said}");
    Ok(())
}

fn document() -> String {
    policy::document(NAME, SPEC, Path::new(PLACE))
}

fn by_file() -> Outcome {
    fs::create_dir_all(PLACE)?;
    let policy = format!("{PLACE}/policy.yaml");
    fs::write(&policy, document())?;
    denied(&policy)
}

fn no_policy_lets_an_agent_touch_the_file_of_its_records(scene: &mut Scene<'_>) -> Outcome {
    by_file()?;
    // The same for one that others share.
    let shared = PolicyFile("record-scenario.yaml");
    shared.write(&document())?;
    let source = shared.path();
    let told = |action: &str| json!({"type": "policy", "action": action, "policy": {"name": NAME}, "source": source});
    scene.records.wait(scene.start, NAME, &told("loaded"))?;
    denied(NAME)?;
    drop(shared);
    scene.records.wait(scene.start, NAME, &told("removed"))?;
    let request = json!({"policy": "locked", "protect": ["records.jsonl"]});
    let (status, answer) = control::request("POST", "/v1/agents", &request.to_string())?;
    ensure!(status == 422 && answer.contains("is not an absolute path"), "status {status}: {answer}");
    Ok(())
}

fn no_policy_lets_an_agent_touch_the_file_of_its_records_without_a_daemon() -> Outcome {
    by_file()
}
