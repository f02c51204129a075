//! Taking away what stays on a node without its daemon: programs, links and maps, and what is known of the agents.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::VERSION;
use super::state::State;
use crate::bpf::{Removal, Removed};
use crate::config::Config;
use crate::control::Lock;
use crate::record::{Body, MonitorChange, Record, clock};
use crate::sink::{LogOptions, Options, Stream};

/// What was removed.
#[derive(Debug, Default)]
pub struct Uninstalled {
    /// The pins of each build.
    pub removed: Vec<Removed>,
    /// Agents that are not guarded any more: id and cgroup.
    pub agents: Vec<(String, String)>,
}

/// Removes all pins. A daemon must not run.
///
/// # Errors
/// One runs, or the kernel refuses.
pub fn uninstall(config: &Config) -> Result<Uninstalled> {
    let _lock = Lock::take(&config.socket).with_context(|| format!("cannot lock {}", config.socket.display()))?;
    let removal = Removal::find(&config.roots.bpffs)?;
    let state = State::open(&config.state_dir)
        .with_context(|| format!("cannot open the directory {}", config.state_dir.display()))?;
    let bound = removal.bindings()?;
    // A place where agents are made is none itself.
    let known = state.agents().into_iter().filter(|agent| agent.origin().is_agent());
    let mut agents: BTreeMap<u32, (String, String)> =
        known.map(|agent| (agent.number, (agent.id, agent.cgroup))).collect();
    agents.retain(|number, _| bound.iter().any(|binding| binding.agent == *number));
    for binding in bound.iter().filter(|binding| binding.is_agent()) {
        let unnamed = || (format!("agent-{}", binding.agent), String::new());
        agents.entry(binding.agent).or_insert_with(unnamed);
    }
    let removed = removal.remove()?;
    state.clear().with_context(|| format!("cannot empty the directory {}", config.state_dir.display()))?;
    let uninstalled = Uninstalled { removed, agents: agents.into_values().collect() };
    if !uninstalled.removed.is_empty()
        && let Err(error) = tell(config, &uninstalled)
    {
        tracing::warn!("cannot write to the audit log {}: {error}", config.audit_log.display());
    }
    Ok(uninstalled)
}

/// The end of enforcement stands in the audit log.
fn tell(config: &Config, uninstalled: &Uninstalled) -> std::io::Result<()> {
    let node_name: Arc<str> = config.node_name.as_str().into();
    let options = Options { log: Some(LogOptions::of(config)), tap: None, node_name: node_name.clone() };
    let (stream, thread) = Stream::start(options)?;
    let mut messages = vec!["the programs were removed: nothing is enforced any more".to_owned()];
    messages.extend(uninstalled.agents.iter().map(|(id, _)| format!("agent {id} is not guarded any more")));
    let (action, version, enforcement) = ("stopped".to_owned(), VERSION.to_owned(), "none".to_owned());
    let body = Body::Monitor(MonitorChange { action, version, enforcement, messages });
    stream.write_blocking(vec![Record { time: clock::now(), seq: None, node_name, body }.into()]);
    drop(stream);
    thread.join().map_err(|_| std::io::Error::other("the thread that writes records panicked"))
}
