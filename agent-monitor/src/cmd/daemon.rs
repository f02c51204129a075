//! `daemon`: guards this node until it is told to stop.

use anyhow::{Context, Result, bail};
use tokio::runtime::Builder;

use super::spare::spare;
use crate::cli::Daemon;
use crate::config::Config;
use crate::daemon;

/// Runs the daemon.
pub fn daemon(config: &Config, options: &Daemon) -> Result<u8> {
    if !rustix::process::geteuid().is_root() {
        bail!("agent-monitor daemon must be started by root: it binds cgroups and loads programs into the kernel");
    }
    // What it starts (the self-test) ends before any agent runs.
    spare();
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(daemon::run(config.clone(), options.allow_partial))?;
    // Followers may still wait for their connections; nobody waits for them.
    runtime.shutdown_background();
    Ok(0)
}
