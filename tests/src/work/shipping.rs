//! The audit log, rotated by `logrotate` and followed by `tail`, as docs/events.md says that they do.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cgroup::Cgroup;
use crate::harness::control::ask;
use crate::harness::daemon::{Daemon, Directory, PLACE, uninstall};
use crate::harness::wait::limit;
use crate::harness::{Outcome, Process, Scenario, policy, skip};
use crate::{scenarios, step};

pub const ALONE: &[Scenario] = scenarios![WorkAlone: the_log_is_rotated_by_logrotate_and_no_record_is_missed];

const PAGE: &str = include_str!("../../../docs/events.md");
/// The log of the page.
const LOG: &str = "/var/log/agent-monitor/audit.jsonl";
/// How the page has the daemon open it again, where systemd keeps the daemon.
const REOPEN: &str = "systemctl kill --signal=HUP agent-monitor.service";
const ROTATIONS: usize = 3;
/// Denials of different files between two rotations, and while one happens.
const DENIALS: u64 = 300;

/// The page's configuration, for a daemon with this process id.
fn configuration(daemon: u32) -> Result<String> {
    let (_, rest) =
        PAGE.split_once(&format!("```\n{LOG} {{\n")).context("the page has no configuration for logrotate")?;
    let (body, _) = rest.split_once("\n}\n```").context("the configuration does not end")?;
    ensure!(body.contains(REOPEN), "the configuration does not have the log opened again");
    Ok(format!("{LOG} {{\n{}\n}}\n", body.replace(REOPEN, &format!("kill -HUP {daemon}"))))
}

/// `tail`, which ends with the scenario.
struct Tail(Child);

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn the_log_is_rotated_by_logrotate_and_no_record_is_missed() -> Outcome {
    if !Path::new("/usr/sbin/logrotate").exists() {
        return Err(skip("logrotate is not installed"));
    }
    let place = Directory(Path::new(PLACE).join("shipping"));
    fs::create_dir_all(&place.0)?;
    let mut daemon = Daemon::start(&[])?;
    let (settings, followed) = (place.0.join("logrotate.conf"), place.0.join("followed"));
    fs::write(&settings, configuration(daemon.pid())?)?;
    let mut tail = Command::new("tail");
    tail.args(["-n", "+1", "-F", LOG]).stdout(File::create(&followed)?).stderr(Stdio::null());
    let _tail = Tail(tail.spawn().context("start tail")?);

    let cgroup = Cgroup::make("/scenarios/shipping")?;
    let text = policy::document("shipping", policy::NOTHING, Path::new("/"));
    let documents = json!([{"name": "", "path": "shipping.yaml", "text": text}]);
    let agent = ask("POST", "/v1/agents", &json!({"documents": documents, "cgroup": cgroup.path}))?;
    let mut process = Process::start_in(&cgroup.directory())?;
    for round in 0..ROTATIONS {
        let prefix = place.0.join(format!("file{round}-"));
        process.send(&step!("flood", prefix, DENIALS.to_string(), DENIALS.to_string()))?;
        let mut rotate = Command::new("/usr/sbin/logrotate");
        rotate.args(["--force", "--state"]).arg(place.0.join("state")).arg(&settings);
        let output = rotate.output().context("start logrotate")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && said.is_empty(), "logrotate ended with {}: {said}", output.status);
        process.answer(&step!("flood"))?;
        // It opens the log again by itself, some time after the signal.
        let deadline = Instant::now() + limit();
        while !Path::new(LOG).exists() {
            ensure!(Instant::now() < deadline, "the log was not opened again");
        }
    }
    ask("DELETE", &format!("/v1/agents/{}", agent["id"].as_str().context("an agent has an id")?), &Value::Null)?;
    ensure!(daemon.end()?.success(), "the daemon did not end well");
    uninstall()?;

    let mut written = Vec::new();
    let mut verify = Command::new("agent-monitor");
    verify.arg("verify");
    for number in (1..=ROTATIONS).rev() {
        let (rotated, packed) = (format!("{LOG}.{number}"), format!("{LOG}.{number}.gz"));
        // With `delaycompress` the newest one is not packed yet.
        if number == 1 {
            written.extend(fs::read(&rotated)?);
            verify.arg(rotated);
        } else {
            let unpacked = Command::new("gzip").args(["-dc", &packed]).output()?;
            ensure!(unpacked.status.success(), "gzip ended with {}", unpacked.status);
            written.extend(unpacked.stdout);
            verify.arg(packed);
        }
    }
    written.extend(fs::read(LOG)?);
    let verified = verify.arg(LOG).output()?;
    ensure!(verified.status.success(), "verify: {}", String::from_utf8_lossy(&verified.stdout));
    let lines = String::from_utf8(written.clone())?;
    let denied: u64 = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| record["agent"]["id"] == agent["id"] && record["verdict"] == "deny")
        .map(|record| record["count"].as_u64().unwrap_or(1))
        .sum();
    ensure!(denied == DENIALS * ROTATIONS as u64, "{denied} denials were written");
    let deadline = Instant::now() + limit();
    while fs::metadata(&followed)?.len() < written.len() as u64 && Instant::now() < deadline {
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    let followed = fs::read(&followed)?;
    ensure!(followed == written, "tail printed {} bytes of {}", followed.len(), written.len());
    Ok(())
}
