//! Policies that are named on the command line, where an agent has written to the directory in which it is typed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, ensure};

use crate::harness::policy::{self, ALL as EVERYTHING};
use crate::harness::{Outcome, Scenario, Scene};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    a_policy_that_is_named_is_never_a_file_of_the_workspace,
];

/// Those that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    a_policy_that_is_named_is_never_a_file_of_the_workspace_without_a_daemon,
];

const PLACE: &str = "/srv/scenarios-names";

/// A workspace in which an agent has left policies that allow everything, named like a shipped one and what that includes.
fn place() -> anyhow::Result<PathBuf> {
    let place = PathBuf::from(PLACE);
    let workspace = place.join("w");
    fs::create_dir_all(&workspace)?;
    fs::write(place.join("secret"), "secret")?;
    for name in ["coding-agent", "base", "toolchain", "credentials"] {
        let text = policy::document(name, &format!("variables: {{WORKSPACE: /}}\n{EVERYTHING}"), &workspace);
        fs::write(workspace.join(format!("{name}.yaml")), &text)?;
        fs::write(workspace.join(name), &text)?;
    }
    Ok(workspace)
}

fn in_workspace(arguments: &[&str]) -> anyhow::Result<Output> {
    let workspace = place()?;
    let output = Command::new("agent-monitor").args(arguments).current_dir(workspace).output();
    output.context("start agent-monitor")
}

fn run(policy: &str) -> anyhow::Result<Output> {
    let workspace = format!("WORKSPACE={PLACE}/w");
    let secret = format!("{PLACE}/secret");
    in_workspace(&["run", "--policy", policy, "--var", &workspace, "--", "/bin/busybox", "cat", &secret])
}

fn named() -> Outcome {
    // The file is one that would do.
    let planted = run("./coding-agent")?;
    ensure!(planted.status.success() && planted.stdout == b"secret", "the planted policy gave {planted:?}");
    let shipped = run("coding-agent")?;
    let report = String::from_utf8_lossy(&shipped.stderr);
    ensure!(!shipped.status.success() && shipped.stdout.is_empty(), "the shipped policy gave {shipped:?}");
    // It does not even let busybox be executed.
    for words in ["denied by the policy coding-agent", "exec /bin/busybox: no rule allows it"] {
        ensure!(report.contains(words), "{words:?} is not in {report}");
    }
    // Nor does a name that only the workspace has mean its file; what is said names the way to mean it.
    fs::write(format!("{PLACE}/w/planted"), policy::document("planted", EVERYTHING, PLACE.as_ref()))?;
    let unknown = run("planted")?;
    let error = String::from_utf8_lossy(&unknown.stderr);
    ensure!(unknown.status.code() == Some(125) && unknown.stdout.is_empty(), "an unknown name gave {unknown:?}");
    for words in ["there is no policy planted", policy::DIRECTORY, "./planted"] {
        ensure!(error.contains(words), "{words:?} is not in {error}");
    }
    Ok(())
}

fn a_policy_that_is_named_is_never_a_file_of_the_workspace(_scene: &mut Scene<'_>) -> Outcome {
    named()?;
    let bound = in_workspace(&["agents", "bind", "/", "--policy", "./coding-agent"])?;
    let error = String::from_utf8_lossy(&bound.stderr);
    ensure!(!bound.status.success() && error.contains("names a file"), "binding to a file gave {bound:?}");
    Ok(())
}

fn a_policy_that_is_named_is_never_a_file_of_the_workspace_without_a_daemon() -> Outcome {
    named()?;
    let object = format!("{PLACE}/secret");
    let words = ["policy", "explain", "coding-agent", "file:read", &object, "--var", "WORKSPACE=/w"];
    let explained = in_workspace(&words)?;
    let text = String::from_utf8_lossy(&explained.stdout);
    ensure!(text.starts_with("deny (no_rule)"), "explain gave {explained:?}");
    let checked = in_workspace(&["policy", "check", "coding-agent"])?;
    ensure!(checked.status.success(), "check gave {checked:?}");
    let unknown = in_workspace(&["policy", "check", "planted"])?;
    ensure!(unknown.status.code() == Some(1), "checking an unknown name gave {unknown:?}");
    Ok(())
}
