//! What a daemon is told by signals while it starts.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::survival::PINS;
use crate::harness::control::SOCKET;
use crate::harness::daemon::{Starting, log_text, uninstall};
use crate::harness::wait::limit;
use crate::harness::{Outcome, Scenario, Scene};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Anew:
    a_daemon_that_loads_opens_its_log_again_when_it_was_told_to,
    a_daemon_that_is_stopped_while_it_loads_leaves_nothing_attached,
];

/// A daemon that has begun to load its programs, because nothing is pinned.
pub fn loading(options: &[&str]) -> Result<Starting> {
    let mut starting = Starting::begin("agent-monitor", options)?;
    let deadline = Instant::now() + limit();
    let unfinished = || fs::read_dir(PINS).is_ok_and(|mut entries| entries.next().is_some());
    while !unfinished() {
        ensure!(Instant::now() < deadline && starting.daemon.runs()?, "nothing was loaded: {}", log_text());
    }
    Ok(starting)
}

/// No program is attached by what is left of pins.
pub fn nothing_is_attached() -> Outcome {
    for build in fs::read_dir(PINS)? {
        let links = fs::read_dir(build?.path().join("links"))?.count();
        ensure!(links == 0, "{links} links are left");
    }
    Ok(())
}

fn a_daemon_that_loads_opens_its_log_again_when_it_was_told_to(scene: &mut Scene<'_>) -> Outcome {
    scene.daemon.end()?;
    uninstall()?;
    let log = scene.path("audit.jsonl");
    let settings = scene.file("config.toml", &format!("audit_log = {log:?}\n"));
    let starting = loading(&["--config", &settings.to_string_lossy()])?;
    fs::rename(&log, scene.path("moved.jsonl")).context("move the log away")?;
    starting.daemon.signal(libc::SIGHUP);
    *scene.daemon = starting.ready()?;
    let deadline = Instant::now() + limit();
    while !log.exists() {
        ensure!(Instant::now() < deadline, "the log was not opened again: {}", log_text());
    }
    let status = scene.daemon.end()?;
    ensure!(status.success(), "the daemon ended with {status}");
    scene.daemon.start_again(&[])
}

fn a_daemon_that_is_stopped_while_it_loads_leaves_nothing_attached(scene: &mut Scene<'_>) -> Outcome {
    scene.daemon.end()?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        uninstall()?;
        let mut starting = loading(&[])?;
        starting.daemon.signal(signal);
        let status = starting.daemon.wait()?;
        let said = log_text();
        ensure!(status.success() && said.contains("stopped before it was ready"), "{status}: {said}");
        nothing_is_attached()?;
        ensure!(!Path::new(SOCKET).exists(), "the control socket is left");
    }
    scene.daemon.start_again(&[])
}
