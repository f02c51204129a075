//! More cgroups than there is room for bindings.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::cgroup::Cgroup;
use crate::harness::control::{ask, metrics};
use crate::harness::daemon::{Daemon, Directory, PLACE, uninstall};
use crate::harness::records::Records;
use crate::harness::{EACCES, Outcome, Process, Scenario, policy};
use crate::{scenarios, step};

/// Has a daemon of its own, with little room.
pub const ALONE: &[Scenario] = scenarios![Alone: a_cgroup_that_no_binding_has_room_for_is_denied_everything];

/// More than the agents root and the cgroups that are there below it.
const ROOM: usize = 64;

/// The agent's cgroup is not below the agents root.
fn a_cgroup_that_no_binding_has_room_for_is_denied_everything() -> Outcome {
    let place = Directory(Path::new(PLACE).join("room"));
    let (policies, settings) = (place.0.join("policies"), place.0.join("config.toml"));
    fs::create_dir_all(&policies)?;
    let log = place.0.join("audit.jsonl");
    fs::write(&settings, format!("audit_log = {log:?}\npolicies_dir = {policies:?}\nbindings = {ROOM}\n"))?;
    let daemon = Daemon::start(&["--config", &settings.to_string_lossy()])?;
    let mut records = Records::open(&log)?;
    let text = policy::document("room", "files:\n  - {allow: [read], paths: [\"/dev/null\"]}\n", &place.0);
    let documents = json!([{"name": "", "path": "room.yaml", "text": text}]);
    let cgroup = Cgroup::make("/scenarios/room")?;
    let agent = ask("POST", "/v1/agents", &json!({"documents": documents, "cgroup": cgroup.path}))?;
    let children: Vec<Cgroup> = (0..ROOM + 2)
        .map(|number| Cgroup::make(&format!("{}/{number}", cgroup.path)))
        .collect::<anyhow::Result<_>>()?;
    let step = step!("open", "/dev/null", "r");
    let mut outsider = Process::start()?;
    // Beside the agent's cgroup, and no agent's.
    let beside = Cgroup::make("/scenarios/beside")?;
    let mut beside = Process::start_in(&beside.directory())?;
    outsider.works(&step, "as an outsider")?;
    beside.works(&step, "beside the agent")?;
    let mut first = Process::start_in(&children[0].directory())?;
    first.works(&step, "in a cgroup that is bound")?;
    let last = &children[children.len() - 1];
    let mut unbound = Process::start_in(&last.directory())?;
    unbound.expect(&step, EACCES, "in a cgroup that could not be bound")?;
    unbound.expect(&step!("socket", "2", "1", "0"), EACCES, "in a cgroup that could not be bound")?;
    let denied = |hook: &str| {
        json!({"type": "operation", "operation": hook, "verdict": "deny", "reason": "fault:no-binding", "errno": "EACCES",
            "process": {"pid": unbound.pid()}})
    };
    records.wait(0, "no-binding", &denied("file_open"))?;
    records.wait(0, "no-binding", &denied("socket_create"))?;
    let reason = "raise the setting bindings";
    let (code, body) = metrics("/readyz")?;
    ensure!(code == 503 && body.contains(reason), "it says that it is ready: {code} {body}");
    let status = ask("GET", "/v1/status", &Value::Null)?;
    ensure!(status["reasons"].to_string().contains(reason), "the status does not say so: {status}");
    let id = agent["id"].as_str().unwrap_or_default();
    ask("DELETE", &format!("/v1/agents/{id}"), &Value::Null)?;
    unbound.works(&step, "after unbinding")?;
    let ended = daemon.stop()?;
    ensure!(ended.success(), "the daemon ended with {ended}");
    // What could not be bound is no operation of the agent in whose cgroup it was made.
    records.read()?;
    let lost = records.count(0, "denials_not_written", &json!({"type": "loss"}))?;
    ensure!(lost == 0, "{lost} losses are told of denials that were none");
    uninstall().map(drop)
}
