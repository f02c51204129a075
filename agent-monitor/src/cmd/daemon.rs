//! `daemon`: guards this node until it is told to stop; enforcement goes on after that. `daemon --uninstall` ends it.

use std::num::NonZero;

use anyhow::{Context, Result, bail};
use tokio::runtime::Builder;

use super::memory;
use super::print;
use super::spare::spare;
use crate::cli::Daemon;
use crate::config::Config;
use crate::daemon;

/// Most threads that work, beside those that wait for disks.
const WORKERS: usize = 4;

/// Runs the daemon.
pub fn daemon(config: &Config, options: &Daemon) -> Result<u8> {
    if !rustix::process::geteuid().is_root() {
        bail!("agent-monitor daemon must be started by root: it binds cgroups and loads programs into the kernel");
    }
    if options.uninstall {
        return uninstall(config);
    }
    memory::limit();
    // What it starts (the self-test) ends before any agent runs.
    spare();
    // One thread reads what the kernel tells and one writes it; more for followers and requests are waste on a large node.
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS);
    let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let ended = runtime.block_on(daemon::run(config.clone(), options.allow_partial));
    // Followers may still wait for their connections, and what was given up for a disk; nobody waits for them.
    runtime.shutdown_background();
    ended?;
    Ok(0)
}

fn uninstall(config: &Config) -> Result<u8> {
    let uninstalled = daemon::uninstall(config)?;
    let mut text = String::new();
    for removed in &uninstalled.removed {
        text.push_str(&format!(
            "removed {}: {} links, {} programs, {} maps\n",
            removed.name, removed.links, removed.programs, removed.maps
        ));
    }
    if uninstalled.removed.is_empty() {
        text.push_str("nothing is pinned on this node; nothing was removed\n");
    }
    for (id, cgroup) in &uninstalled.agents {
        text.push_str(&format!("agent {id} is not guarded any more: {cgroup}\n"));
    }
    print::out(&text)?;
    Ok(0)
}
