//! The daemon: its state, and how it starts and stops. What it does in between is `work`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::applied::Applied;
use super::catalogue::{Catalogue, Read};
use super::change::{Made, Waiting};
use super::compiler::Compiler;
use super::configured::Configured;
use super::expiry::Expired;
use super::following::Followers;
use super::loss::Awaited;
use super::node::Node;
use super::notify::notify;
use super::pump::{Marks, Refused};
use super::selftest::Outcome;
use super::signals::Signals;
use super::start::{StartError, Started, Stay, start};
use super::watch::{CgroupWatch, Trouble};
use super::{VERSION, requests};
use crate::bind::limit;
use crate::config::Config;
use crate::control::{
    Answer, Health, Limits, Listeners, Lock, Readers, Readiness, Request, RequestTotals, api, control_router, group_id,
    metrics_router, serve,
};
use crate::enrich::Enricher;
use crate::sink::metrics::Metrics;
use crate::sink::{LogOptions, Options, Pulse, Stream};
use crate::support::{Level, kernel_release};

/// Requests that may wait.
const REQUESTS: usize = 64;

/// The daemon's state.
pub struct Daemon {
    /// Settings.
    pub config: Config,
    /// The node.
    pub node: Node,
    /// How much is enforced.
    pub level: Level,
    /// What was tested at start.
    pub tests: Vec<Outcome>,
    /// Describes processes.
    pub enricher: Enricher,
    /// What could not be decoded.
    pub refused: Arc<Refused>,
    /// The policy directory.
    pub catalogue: Catalogue,
    /// Whether all is well.
    pub readiness: watch::Sender<Readiness>,
    /// Requests that were refused.
    pub request_totals: Arc<RequestTotals>,
    /// The metrics.
    pub metrics: Metrics,
    /// Room for followers.
    pub followers: Followers,
    /// Who waits for the end of an agent, and whether processes were killed for it.
    pub ending: HashMap<u32, (Option<Answer<api::Agent>>, bool)>,
    /// Comes back from what takes long.
    pub background: mpsc::Sender<Background>,
    /// The agents of the configuration.
    pub configured: Vec<Configured>,
    /// Tells where these may have been made anew; none where the kernel does not.
    pub cgroup_watch: Option<CgroupWatch>,
    /// Why the policy directory is not watched.
    pub policies_watch: Trouble,
    /// What stays wrong until the daemon is started again.
    pub lasting: BTreeSet<String>,
    /// Everything is bound that must be bound before the daemon is ready.
    pub started: bool,
    /// The id of this boot; empty where it is not known.
    pub boot_id: String,
    /// Why agents whose time is over are not bound to `empty`.
    pub overdue: Vec<String>,
    /// Those that are, and of which that is not written down yet.
    pub expired: Expired,
    /// Whether the audit log takes records.
    pub pulse: Pulse,
    /// How many bindings have ended because their time was over.
    pub bindings_expired: u64,
    /// The policies that were applied over the control socket.
    pub applied: Applied,
    /// Changes of these that wait.
    pub changes: VecDeque<Waiting>,
    /// The policies are being read.
    pub reading: bool,
    /// It changed meanwhile.
    pub read_again: bool,
    /// Agents of which an earlier daemon may have taken events that it did not write.
    pub unsettled: Vec<u32>,
    /// Sets marks in what is read from the rings.
    pub marks: Marks,
    /// Number of the last record when what was counted was written down last.
    pub checkpoint: u64,
}

/// What took long and is done.
pub enum Background {
    /// An agent's cgroup is empty, and whether processes were killed for it.
    Emptied(u32, Result<bool, String>),
    /// The policies were read, after a change of the applied ones where there was one.
    Read(Result<Box<(Read, Option<Made>)>, String>),
    /// What was in the rings is written; and what the counters said before.
    Passed(Vec<Awaited>),
    /// What was in the rings is written, and whoever is unknown now is a stray.
    StraysPassed,
    /// The policy of an agent of the configuration is compiled.
    Configured(usize, Result<requests::Compiled, api::Refusal>),
    /// The policy of a request is compiled.
    Compiled(Box<(api::CreateAgent, Result<requests::Compiled, api::Refusal>, Answer<api::Bound>)>),
}

/// Runs the daemon until it is told to stop, also while it starts.
///
/// # Errors
/// It can't start; what was started is taken back.
pub async fn run(config: Config, allow_partial: bool) -> Result<(), StartError> {
    let signals = Signals::take()?;
    let lock = Lock::take(&config.socket).with_context(|| format!("cannot lock {}", config.socket.display()))?;
    let options =
        Options { log: Some(LogOptions::of(&config)), tap: None, node_name: config.node_name.as_str().into() };
    let (stream, writing) =
        Stream::start(options).with_context(|| format!("cannot open the audit log {}", config.audit_log.display()))?;
    let (stop, stopped) = watch::channel(false);
    let (readiness, ready) = watch::channel(Readiness { ready: false, reasons: vec!["starting".to_owned()] });
    let (sender, requests) = mpsc::channel(REQUESTS);
    let totals = Arc::new(RequestTotals::default());
    let metrics_address = config.metrics_address()?;
    let readers = Readers { group: readers_group(&config)?, proc: config.roots.proc.clone() };
    let listeners = Listeners::bind(&lock, &config.socket, readers, metrics_address).await;
    let listeners = listeners
        .with_context(|| format!("cannot listen on {} and {}", config.socket.display(), config.metrics_address))?;
    let (control, metrics, socket) = listeners.into_parts();
    let limits = Limits::default();
    let router = control_router(sender.clone(), totals.clone(), limits);
    let mut serving = JoinSet::new();
    serving.spawn(serve(control, router, limits, totals.clone(), stopped.clone()));
    if let Some(metrics) = metrics {
        let limits = Limits { lifetime: Some(Duration::from_secs(60)), ..limits };
        let router = metrics_router(Health { requests: sender, readiness: ready });
        serving.spawn(serve(metrics, router, limits, totals.clone(), stopped));
    }
    let (outside, mut given_up) = (Outside { readiness, totals, requests, signals }, None);
    let result = guarded(&config, allow_partial, stream.clone(), outside, &mut given_up).await;
    notify("STOPPING=1");
    let _ = stop.send(true);
    let given_up = given_up.unwrap_or_else(|| give_up(&config));
    // A disk that hangs is told of below.
    let _ = timeout_at(given_up, stream.flush()).await;
    // The last way into the stream: followers get what is written, and then the end.
    drop(stream);
    while serving.join_next().await.is_some() {}
    // It ends with the last way in, and syncs the log then; where something still holds one, it was flushed.
    let joined = tokio::task::spawn_blocking(move || writing.join());
    if !matches!(timeout_at(given_up, joined).await, Ok(Ok(Ok(())))) {
        tracing::warn!("stopped before the audit log was closed");
    }
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "cannot remove the control socket");
    }
    match result {
        Err(StartError::Stopped) => {
            tracing::info!("stopped before it was ready, as it was told to");
            Ok(())
        }
        other => other,
    }
}

/// When what is still queued is given up, where stopping begins now.
fn give_up(config: &Config) -> Instant {
    Instant::now() + Duration::from_secs(config.drain_seconds)
}

/// What the daemon is asked by, and what it says of itself.
struct Outside {
    readiness: watch::Sender<Readiness>,
    totals: Arc<RequestTotals>,
    requests: mpsc::Receiver<Request>,
    signals: Signals,
}

async fn guarded(
    config: &Config,
    allow_partial: bool,
    stream: Stream,
    outside: Outside,
    given_up: &mut Option<Instant>,
) -> Result<(), StartError> {
    let Outside { readiness, totals: request_totals, requests, signals } = outside;
    let compiler = Compiler::new(&config.policies_dir, super::protected(config, &[]));
    let applied = Applied::open(&config.state_dir);
    let applied = applied.with_context(|| format!("cannot make a directory in {}", config.state_dir.display()))?;
    let allow_partial = allow_partial || config.allow_partial;
    let started = start(config, allow_partial, Stay::Node, &stream, &compiler, &signals.stop).await?;
    let Started { node, pump, notices, level, tests, enricher } = started;
    let (background, done) = mpsc::channel(REQUESTS);
    let mut daemon = Daemon {
        config: config.clone(),
        node,
        level,
        tests,
        enricher,
        refused: pump.refused.clone(),
        catalogue: Catalogue::default(),
        readiness,
        request_totals,
        metrics: Metrics::new(VERSION, &kernel_release()),
        followers: Followers::default(),
        ending: HashMap::new(),
        background,
        configured: Vec::new(),
        cgroup_watch: None,
        policies_watch: Trouble::default(),
        lasting: BTreeSet::new(),
        started: false,
        boot_id: boot_id(config),
        overdue: Vec::new(),
        expired: Expired::default(),
        pulse: Pulse::new(std::time::Instant::now()),
        bindings_expired: 0,
        applied,
        changes: VecDeque::new(),
        reading: false,
        read_again: false,
        unsettled: Vec::new(),
        marks: pump.marks(),
        checkpoint: 0,
    };
    if daemon.node.programs.taken_over() {
        daemon.unsettled = daemon.node.directory.table().iter().map(|agent| agent.number).collect();
    }
    daemon.tell("started", Vec::new());
    let taken = daemon.take_charge(&signals.stop).await;
    if matches!(taken, Ok(true)) {
        daemon.work(signals, requests, notices, done).await;
    }
    daemon.stop(pump, *given_up.insert(give_up(config))).await;
    taken?;
    Ok(())
}

/// The group whose members may read from the control socket.
fn readers_group(config: &Config) -> Result<Option<u32>> {
    if config.control_group.is_empty() {
        return Ok(None);
    }
    let group = group_id(&config.control_group, Path::new("/etc/group"));
    group.map(Some).with_context(|| format!("control_group = {:?}", config.control_group))
}

/// The id of this boot, where it can be read.
fn boot_id(config: &Config) -> String {
    let read = limit::boot_id(&config.roots.proc).inspect_err(|error| {
        tracing::warn!(%error, "cannot read the boot's id: bindings that were made for a time end by the time of day");
    });
    read.unwrap_or_default()
}

impl Daemon {
    /// Writes what is left to write, until it is given up.
    async fn stop(mut self, pump: super::pump::Running, given_up: Instant) {
        self.check_misses();
        self.readiness.send_replace(Readiness { ready: false, reasons: vec!["stopping".to_owned()] });
        self.node.check_losses();
        let agents = super::view::agent_count(&self);
        let messages = vec![format!("{agents} agents stay guarded: enforcement goes on without the daemon")];
        let drained = timeout_at(given_up, async {
            // What comes after this stays in the rings, for the next daemon.
            let pumped = tokio::task::spawn_blocking(move || pump.stop()).await;
            if let Err(error) = pumped {
                tracing::error!(%error, "reading the last events panicked");
            }
            self.tell("stopped", messages);
            // A checkpoint that is being written is of before.
            self.node.flush().await;
            self.node.checkpoint();
            self.node.flush().await;
        });
        if drained.await.is_err() {
            tracing::error!(
                "stopped before all records were written: more than {} seconds would have been needed",
                self.config.drain_seconds
            );
        }
    }
}
