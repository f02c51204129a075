//! Starting: load the programs, start what reads their events, and prove that they decide. `run` and `daemon` both start
//! here.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::compiler::Compiler;
use super::directory::Directory;
use super::node::Node;
use super::pump::{Notice, Pump, Running};
use super::restore;
use super::selftest::{self, Outcome};
use super::signals::Stop;
use super::state::State;
use crate::bind::Hierarchy;
use crate::bpf::{LoadOptions, Programs, Roots};
use crate::config::Config;
use crate::enrich::Enricher;
use crate::sink::Stream;
use crate::support::{self, Level};

/// A node that works.
pub struct Started {
    /// The node.
    pub node: Node,
    /// What reads its events.
    pub pump: Running,
    /// What the node must know of.
    pub notices: mpsc::UnboundedReceiver<Notice>,
    /// How much is enforced.
    pub level: Level,
    /// What was tested.
    pub tests: Vec<Outcome>,
    /// Describes processes.
    pub enricher: Enricher,
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This kernel can't enforce what was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// It was told to stop meanwhile.
    #[error("told to stop before it was ready")]
    Stopped,
    /// Something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// How long what is loaded stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// As long as this process.
    Process,
    /// Until it is removed: all is pinned, and what is pinned is taken over.
    Node,
}

/// Starts a node, unless it is told to stop meanwhile.
///
/// # Errors
/// See [`StartError`]; nothing stays attached then that was not before.
pub async fn start(
    config: &Config,
    allow_partial: bool,
    stay: Stay,
    stream: &Stream,
    compiler: &Compiler,
    stop: &Stop,
) -> Result<Started, StartError> {
    let hierarchy = Hierarchy::open(&config.roots.cgroup, &config.roots.proc)
        .map_err(|error| StartError::Unsupported(format!("cannot use cgroups: {error}")))?;
    let roots = Roots { sys: config.roots.sys.clone(), cgroup: hierarchy.mount().to_owned() };
    let attempt = Attempt { config, hierarchy, roots: roots.clone(), stay, stream, compiler, stop };
    let why = match attempt.run(Level::Full).await? {
        Ok(started) => return Ok(started),
        Err(Without::Stopped) => return Err(StartError::Stopped),
        Err(Without::Unable(why)) => why,
    };
    if !allow_partial {
        return Err(StartError::Unsupported(support::refusal(&why, &roots)));
    }
    tracing::warn!("this kernel can't enforce everything; going on with the network alone, as asked for: {why}");
    match attempt.run(Level::Partial).await? {
        Ok(started) => Ok(started),
        Err(Without::Stopped) => Err(StartError::Stopped),
        Err(Without::Unable(why)) => Err(StartError::Unsupported(support::refusal(&why, &roots))),
    }
}

/// Why an attempt gave no node.
enum Without {
    /// The kernel can't do it, for this reason.
    Unable(String),
    /// It was told to stop.
    Stopped,
}

struct Attempt<'a> {
    config: &'a Config,
    hierarchy: Hierarchy,
    roots: Roots,
    stay: Stay,
    stream: &'a Stream,
    compiler: &'a Compiler,
    stop: &'a Stop,
}

impl Attempt<'_> {
    /// Tries to start with this much.
    async fn run(&self, level: Level) -> Result<Result<Started, Without>> {
        let partial = level != Level::Full;
        let pins = (self.stay == Stay::Node).then(|| self.config.roots.bpffs.clone());
        let state = pins.as_ref().map(|_| State::open(&self.config.state_dir)).transpose();
        let state = state.with_context(|| format!("cannot make the directory {}", self.config.state_dir.display()))?;
        let options = LoadOptions { partial, bindings: self.config.bindings, roots: self.roots.clone(), pins };
        let loaded = tokio::task::spawn_blocking(move || Programs::load(&options)).await;
        let loaded = loaded.context("loading the programs panicked")?;
        if self.stop.is_asked() {
            // What was loaded goes with it. Where it failed the same signal, from a terminal, may have ended who loads.
            return Ok(Err(Without::Stopped));
        }
        let mut programs = match loaded {
            Ok(programs) => programs,
            Err(error) if error.is_about_pins() => return Err(error.into()),
            Err(error) => return Ok(Err(Without::Unable(support::reason(&error)))),
        };
        programs.protect(std::process::id()).context("cannot protect this process from agents")?;
        // The rings belong to a runtime of their own, so that nothing that the daemon does keeps them from being read.
        let runtime =
            Builder::new_current_thread().enable_all().build().context("cannot start a runtime for the rings")?;
        let rings = {
            let _inside = runtime.enter();
            programs.take_rings()
        };
        let rings = match rings {
            Ok(rings) => rings,
            Err(error) => {
                runtime.shutdown_background();
                return Ok(Err(Without::Unable(error.to_string())));
            }
        };
        let directory = Arc::new(Directory::new(self.hierarchy.clone()));
        let enricher =
            Enricher::start(self.config.roots.proc.clone()).context("cannot start the threads that read /proc")?;
        // Without a limit: the thread that reads the rings must not wait for the node, which until it works, in the self-test,
        // waits for what that thread reads. A notice is a few bytes, and one is read for each cgroup that comes or goes.
        let (notice_sender, notices) = mpsc::unbounded_channel();
        let node_name: Arc<str> = self.config.node_name.as_str().into();
        // Before anything is read from the rings: whose events these are must be known.
        let takes_over = state.map(|state| {
            (
                state,
                restore::Roots {
                    agents: &self.config.agents_root,
                    run: &self.config.run_root,
                    log: &self.config.audit_log,
                },
            )
        });
        let mut node = Node::new(
            programs,
            directory.clone(),
            self.stream.clone(),
            node_name.clone(),
            self.compiler.clone(),
            takes_over,
        )?;
        let pump = Pump {
            directory,
            enricher: enricher.clone(),
            stream: self.stream.clone(),
            notices: notice_sender,
            take_repeats: node.take_repeats.clone(),
            node_name,
            enforcement: partial.then(|| level.name().to_owned()),
            state: node.state.clone(),
        };
        let pump = pump.start(rings, runtime).context("cannot start the threads that read events")?;
        node.marks = Some(pump.marks());
        let tests: &[&'static str] = if partial { &["network"] } else { &["file", "exec", "network", "events"] };
        let outcomes = selftest::run(&mut node, &self.config.run_root, tests).await;
        if self.stop.is_asked() {
            tokio::task::spawn_blocking(move || pump.stop()).await.context("stopping panicked")?;
            return Ok(Err(Without::Stopped));
        }
        let failed = match &outcomes {
            Ok(outcomes) => outcomes.iter().filter_map(failure).collect::<Vec<_>>().join("; "),
            Err(_) => String::new(),
        };
        let mut started = Started { node, pump, notices, level, tests: outcomes?, enricher };
        if failed.is_empty() {
            // From here on a later daemon counts what is written.
            started.node.checkpoint();
            started.node.flush().await;
            started.node.programs.keep()?;
            started.node.finish_taking_over()?;
            // Agents may have another number now.
            started.node.checkpoint();
            return Ok(Ok(started));
        }
        tokio::task::spawn_blocking(move || started.pump.stop()).await.context("stopping panicked")?;
        let why = format!("the programs are attached, but what they decide is not what happens: self-test {failed}");
        Ok(Err(Without::Unable(why)))
    }
}

fn failure(outcome: &Outcome) -> Option<String> {
    let failure = outcome.failure.as_ref()?;
    Some(format!("{}: {failure}", outcome.test))
}
