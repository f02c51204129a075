//! The audit log of all that happened so far is a chain, and what is changed in it is found.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::records::LOG;
use crate::harness::{Outcome, Scenario, Scene};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    the_audit_log_is_whole_and_a_changed_byte_and_a_cut_tail_are_found,
];

/// Exit status of `verify` with these options, and what it says.
fn verify(options: &[&str]) -> Result<(Option<i32>, Value)> {
    let output = Command::new("agent-monitor").args(["verify", "-o", "json"]).args(options).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| format!("verify says: {said}"))?;
    Ok((output.status.code(), report))
}

fn the_audit_log_is_whole_and_a_changed_byte_and_a_cut_tail_are_found(scene: &mut Scene<'_>) -> Outcome {
    let (status, report) = verify(&[])?;
    ensure!(status == Some(0) && report["intact"] == true && report["head"] == "found", "{status:?}: {report}");
    let head = "/var/lib/agent-monitor/head.json";
    let copied_head = scene.path("head.json").to_string_lossy().into_owned();
    fs::copy(head, &copied_head)?;
    let copy = scene.path("copy.jsonl").to_string_lossy().into_owned();
    fs::copy(LOG, &copy)?;
    let options = ["--head", &copied_head, &copy];
    let (status, report) = verify(&options)?;
    ensure!(status == Some(0), "of a copy, {status:?}: {report}");
    let text = fs::read_to_string(&copy)?;
    fs::write(&copy, text.replacen("\"node_name\"", "\"node-name\"", 1))?;
    let (status, report) = verify(&options)?;
    let changed = &report["problems"][0];
    ensure!(status == Some(1) && changed["problem"] == "changed" && changed["line"] == 1, "{status:?}: {report}");
    // All but the last line that the head knows of, and what came after it.
    let noted: Value = serde_json::from_str(&fs::read_to_string(&copied_head)?)?;
    let number = format!("\"seq\":{},", noted["seq"]);
    let before = text.lines().take_while(|line| !line.contains(&number)).map(|line| line.to_owned() + "\n");
    fs::write(Path::new(&copy), before.collect::<String>())?;
    let (status, report) = verify(&options)?;
    ensure!(status == Some(1) && report["problems"][0]["problem"] == "tail_missing", "{status:?}: {report}");
    Ok(())
}
