//! `run`: one command as an agent. With a daemon on this node the daemon makes the agent; without one the programs are
//! loaded here, for as long as the command runs.

mod child;
mod guard;
mod job;
mod lead;
mod local;
mod pty;
mod relay;
mod remote;
mod report;
mod session;
mod signals;
mod tend;
mod terminal;

use agent_monitor_common::class::Mode;
use anyhow::{Result, bail};

use super::{policy::indented, print, small_runtime};
use crate::cli::Run;
use crate::config::Config;
use crate::record::Counts;
use report::Report;

pub use guard::guard;
pub use lead::lead;
pub use report::describe;
pub use tend::tend;

/// How the command ended, and what was seen of it.
struct Ended {
    /// Exit status.
    code: u8,
    /// Process id of the command.
    pid: u32,
    /// What was left of it was killed.
    killed: bool,
    /// What the kernel counted.
    counts: Counts,
    /// What was recorded.
    report: Report,
}

/// Runs the command.
pub fn run(config: &Config, options: &Run) -> Result<u8> {
    if let Some(mode) = &options.agent.mode {
        mode_of(mode)?;
    }
    if !rustix::process::geteuid().is_root() {
        bail!("agent-monitor run must be started by root: it binds a cgroup and loads programs into the kernel");
    }
    let ended = small_runtime()?.block_on(async {
        // A socket that is there means a daemon that should answer: going on without it would hide that it does not.
        if config.socket.exists() { remote::run(config, options).await } else { local::run(config, options).await }
    })?;
    let text = ended.report.text(&ended.counts, ended.pid, ended.killed);
    print::error(&indented(&text, "agent-monitor: "));
    Ok(ended.code)
}

/// The mode that a word names.
fn mode_of(word: &str) -> Result<Mode> {
    match Mode::from_name(word) {
        Some(mode) => Ok(mode),
        None => bail!("unknown mode {word}: use enforce or audit"),
    }
}
