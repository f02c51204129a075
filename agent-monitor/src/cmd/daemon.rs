//! `daemon`: guards this node until it is told to stop; enforcement goes on after that. `daemon --uninstall` ends it.

use anyhow::{Context, Result, bail};
use tokio::runtime::Builder;

use super::print;
use crate::cli::Daemon;
use crate::config::Config;
use crate::daemon;

/// Runs the daemon.
pub fn daemon(config: &Config, options: &Daemon) -> Result<u8> {
    if !rustix::process::geteuid().is_root() {
        bail!("agent-monitor daemon must be started by root: it binds cgroups and loads programs into the kernel");
    }
    if options.uninstall {
        return uninstall(config);
    }
    spare_from_lack_of_memory();
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(daemon::run(config.clone(), options.allow_partial))?;
    // Followers may still wait for their connections; nobody waits for them.
    runtime.shutdown_background();
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

/// Asks the kernel to end anything else first where memory runs out: an agent can fill it, and while no daemon runs nobody
/// reads what is denied. Where that is refused (no CAP_SYS_RESOURCE) the daemon runs all the same.
fn spare_from_lack_of_memory() {
    const SCORE: &str = "/proc/self/oom_score_adj";
    if let Err(error) = std::fs::write(SCORE, "-1000") {
        tracing::warn!("cannot write {SCORE}: {error}; where memory runs out the daemon may be ended like any process");
    }
}
