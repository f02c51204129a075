//! `cargo xtask test --hard`: the scenarios on kernels that check their own memory, and stress-ng as an agent.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::ci::{pool, scenarios};
use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{setup, vm};

const SCRIPT: &str = include_str!("hard/stress.sh");

/// The kernel checks each object that it allocates and frees: consistency, red zones, poison, who it was.
const CHECKED_MEMORY: &str = "slub_debug=FZPU";
/// Scenarios that load and detach all programs by themselves: a `run` that ends well, one that is killed, a daemon that is
/// uninstalled.
const LOADED_AGAIN: [&str; 3] = [
    "run_without_a_daemon_enforces_by_itself",
    "a_run_that_is_killed_ends_its_agent_before_enforcement_ends",
    "uninstalling_ends_enforcement_and_says_for_whom",
];
/// How long the stress may take on one kernel.
const STRESS_LIMIT_SECONDS: u64 = 2400;

/// Runs both on each kernel. The console's watcher fails a machine whose kernel complains.
pub fn run(workspace: &Workspace, kernels: &[Spec]) -> Result<ExitCode> {
    setup::ensure_package("stress-ng", "stress-ng").context("set up what only the hard runs need")?;
    // Loading takes minutes there, so each of those with programs of its own is one of a kind.
    let command = format!(
        "export SCENARIO_PATIENCE=10; /root/scenarios --times --shared && /root/scenarios --times {}",
        LOADED_AGAIN.join(" ")
    );
    let mut checked = scenarios::machine(workspace, kernels, &command)?;
    CHECKED_MEMORY.clone_into(&mut checked.append);
    checked.timeout *= 3;

    let dir = tempfile::tempdir().context("create a directory for the script")?;
    let script = dir.path().join("stress.sh");
    std::fs::write(&script, SCRIPT).with_context(|| format!("write {}", script.display()))?;
    let mut stress = vm::Options::of(kernels, vec![script], "bash /root/stress.sh");
    CHECKED_MEMORY.clone_into(&mut stress.append);
    stress.root = vm::Root::Host;
    stress.memory = Some(3072);
    stress.jobs = pool::AT_ONCE;
    stress.timeout = STRESS_LIMIT_SECONDS;

    let mut failed = 0;
    for (name, options) in [("scenarios", checked), ("stress", stress)] {
        for run in vm::run_on_all(workspace, &options)? {
            ensure!(run.status != vm::INTERRUPTED, "interrupted");
            let well = run.status == 0;
            let word = if well { "passed".to_owned() } else { format!("FAILED with status {}", run.status) };
            println!("hard: {name} on linux {} with {CHECKED_MEMORY}: {word}", run.release);
            failed += u32::from(!well);
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
