//! The daemon: one task that owns the node and does one thing at a time. What takes long (compiling, killing) is done
//! elsewhere and comes back as a message.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent_monitor_common::binding::EMPTY_SLOT;
use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::catalogue::{self, Catalogue};
use super::node::{Node, Wanted};
use super::notify::notify;
use super::policies::Source;
use super::pump::{Notice, Refused};
use super::selftest::Outcome;
use super::start::{StartError, Started, start};
use super::{VERSION, requests, watch::watch as watch_directory};
use crate::bind::{Agent, Cgroup, Origin};
use crate::bpf::HookStatus;
use crate::config::Config;
use crate::control::{
    Answer, Health, Limits, Listeners, Lock, Readiness, Request, RequestTotals, api, control_router, metrics_router,
    serve,
};
use crate::enrich::Enricher;
use crate::record::{Body, MonitorChange};
use crate::sink::metrics::Metrics;
use crate::sink::{Options, Stream};
use crate::support::{Level, kernel_release};

/// Requests that may wait.
const REQUESTS: usize = 64;
/// Followers of the events at once.
const FOLLOWERS: usize = 32;
/// How often counters that nobody tells of are looked at.
const TICK: Duration = Duration::from_secs(1);

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
    pub followers: Arc<Semaphore>,
    /// Who waits for the end of an agent, and whether processes were killed for it.
    pub ending: HashMap<u32, (Option<Answer<api::Agent>>, bool)>,
    /// Comes back from what takes long.
    pub background: mpsc::Sender<Background>,
    /// What stays wrong until the daemon is started again.
    lasting: BTreeSet<String>,
    started: bool,
}

/// What took long and is done.
pub enum Background {
    /// An agent's cgroup is empty, and whether processes were killed for it.
    Emptied(u32, Result<bool, String>),
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// It can't start; what was started is taken back.
pub async fn run(config: Config, allow_partial: bool) -> Result<(), StartError> {
    let lock = Lock::take(&config.socket).with_context(|| format!("cannot lock {}", config.socket.display()))?;
    let options =
        Options { file: Some(config.audit_log.clone()), tap: None, node_name: config.node_name.as_str().into() };
    let (stream, _thread) =
        Stream::start(options).with_context(|| format!("cannot open the audit log {}", config.audit_log.display()))?;
    let (stop, stopped) = watch::channel(false);
    let (readiness, ready) = watch::channel(Readiness { ready: false, reasons: vec!["starting".to_owned()] });
    let (sender, requests) = mpsc::channel(REQUESTS);
    let totals = Arc::new(RequestTotals::default());
    let metrics_address = config.metrics_address()?;
    let listeners = Listeners::bind(&lock, &config.socket, metrics_address).await;
    let listeners = listeners
        .with_context(|| format!("cannot listen on {} and {}", config.socket.display(), config.metrics_address))?;
    let (control, metrics, socket) = listeners.into_parts();
    let limits = Limits { clients: 64, head: Duration::from_secs(10) };
    tokio::spawn(serve(
        control,
        control_router(sender.clone(), totals.clone()),
        limits,
        totals.clone(),
        stopped.clone(),
    ));
    if let Some(metrics) = metrics {
        let router = metrics_router(Health { requests: sender, readiness: ready });
        tokio::spawn(serve(metrics, router, limits, totals.clone(), stopped));
    }
    let result = guarded(&config, allow_partial, stream.clone(), readiness, totals, requests).await;
    notify("STOPPING=1");
    let _ = stop.send(true);
    stream.flush().await;
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "cannot remove the control socket");
    }
    result
}

async fn guarded(
    config: &Config,
    allow_partial: bool,
    stream: Stream,
    readiness: watch::Sender<Readiness>,
    request_totals: Arc<RequestTotals>,
    requests: mpsc::Receiver<Request>,
) -> Result<(), StartError> {
    let started = start(config, allow_partial || config.allow_partial, &stream, super::protected(config, &[])).await?;
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
        followers: Arc::new(Semaphore::new(FOLLOWERS)),
        ending: HashMap::new(),
        background,
        lasting: BTreeSet::new(),
        started: false,
    };
    daemon.tell("started", Vec::new());
    let result = match daemon.take_charge().await {
        Ok(()) => daemon.work(requests, notices, done).await,
        Err(error) => Err(error),
    };
    daemon.stop(pump).await;
    Ok(result?)
}

impl Daemon {
    /// Binds everything that must be bound before the daemon is ready.
    async fn take_charge(&mut self) -> Result<()> {
        let path = self.config.agents_root.clone();
        let root = self.node.directory.hierarchy.make_or_look_up(&path);
        let root = root.with_context(|| format!("cannot make the agents root {path}"))?;
        self.node.programs.set_root(root.id, root.level()).context("cannot tell the kernel the agents root")?;
        // The root first: what is made in it from now on is bound by the kernel.
        let wanted = wanted(EMPTY_SLOT, Origin::Directory);
        self.node.bind(&root, Wanted { id: Some("agents-root".to_owned()), ..wanted })?;
        self.reload().await;
        for child in self.node.directory.hierarchy.children(&root.path) {
            self.adopt(&child, EMPTY_SLOT);
        }
        for agent in self.config.agents.clone() {
            let cgroup = agent.cgroup.clone();
            let request = api::CreateAgent {
                name: agent.name,
                policy: Some(agent.policy),
                variables: agent.variables,
                labels: agent.labels,
                mode: agent.mode,
                cgroup: Some(agent.cgroup),
                ..api::CreateAgent::default()
            };
            let bound = requests::create(self, request).await;
            bound.map_err(|refusal| {
                anyhow::anyhow!("cannot bind the cgroup {cgroup} of the configuration: {refusal}")
            })?;
        }
        self.node.write().await;
        self.refresh();
        self.started = true;
        self.refresh();
        self.node.write().await;
        let (version, level) = (VERSION, self.level.name());
        tracing::info!(version, enforcement = level, agents = self.node.directory.table().len(), "ready");
        notify("READY=1");
        Ok(())
    }

    /// Binds a cgroup that is there already and that the kernel should have bound, had we been there.
    fn adopt(&mut self, cgroup: &Cgroup, slot: u32) {
        if self.node.directory.table().by_cgroup(cgroup.id).is_some() {
            return;
        }
        if let Err(error) = self.node.bind(cgroup, wanted(slot, Origin::Below)) {
            self.lasting.insert(format!("cgroup {} is not bound", cgroup.path));
            tracing::error!("{error:#}");
        }
    }

    /// Reads the policy directory again, and makes the policies' cgroups below the agents root.
    async fn reload(&mut self) {
        let directory = self.config.policies_dir.clone();
        let instances = self.node.policies.iter();
        let again = instances
            .filter(|one| one.source == Source::Agent && Path::new(&one.candidate.path).starts_with(&directory));
        let again = again.map(|one| (one.slot, one.candidate.path.clone(), one.candidate.variables.clone())).collect();
        let reading = directory.clone();
        let read = match tokio::task::spawn_blocking(move || catalogue::read(&reading, again)).await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "reading the policy directory panicked; what was in force stays");
                return;
            }
        };
        for seconds in self.catalogue.apply(&mut self.node, &directory, read) {
            self.metrics.policy_swap_seconds.observe(seconds);
        }
        self.make_directories();
        self.refresh();
        self.node.write().await;
    }

    /// For each policy of the directory the cgroup `<agents root>/<policy>`, bound to it; that of a policy that is gone is
    /// bound to `empty`, while the agents in it keep what they have.
    fn make_directories(&mut self) {
        let root = self.config.agents_root.trim_matches('/').to_owned();
        let policies: Vec<(u32, String)> = self
            .node
            .policies
            .iter()
            .filter(|one| one.source == Source::Directory)
            .map(|one| (one.slot, one.name().to_owned()))
            .collect();
        for (slot, name) in policies {
            if let Err(error) = self.make_directory(&format!("{root}/{name}"), slot) {
                self.lasting.insert(format!("the cgroup of policy {name} is not bound"));
                tracing::error!("policy {name}: {error:#}");
            }
        }
        let removed: Vec<u32> =
            self.node.policies.iter().filter(|one| one.source == Source::Removed).map(|one| one.slot).collect();
        for slot in removed {
            let directories: Vec<u32> = {
                let table = self.node.directory.table();
                let here = table.iter().filter(|agent| agent.slot == slot && agent.origin == Origin::Directory);
                here.map(|agent| agent.number).collect()
            };
            for number in directories {
                if let Err(error) = self.node.rebind(number, EMPTY_SLOT) {
                    tracing::error!("{error:#}");
                }
            }
            let unused = self.node.directory.table().count(slot) == 0;
            if unused {
                if let Err(error) = self.node.unload(slot) {
                    tracing::error!("{error:#}");
                }
            }
        }
    }

    fn make_directory(&mut self, path: &str, slot: u32) -> Result<()> {
        let cgroup = self.node.directory.hierarchy.make_or_look_up(path);
        let cgroup = cgroup.with_context(|| format!("cannot make the cgroup {path}"))?;
        let known =
            self.node.directory.table().by_cgroup(cgroup.id).map(|agent| (agent.number, agent.slot, agent.origin));
        match known {
            Some((_, bound, Origin::Directory)) if bound == slot => return Ok(()),
            Some((number, _, Origin::Directory)) => return self.node.rebind(number, slot),
            // The kernel announced it: it was made in the agents root. It is a directory, and no agent.
            Some((number, _, _)) => self.node.forget(number),
            None => {}
        }
        self.node.bind(&cgroup, wanted(slot, Origin::Directory))?;
        for child in self.node.directory.hierarchy.children(&cgroup.path) {
            self.adopt(&child, slot);
        }
        Ok(())
    }

    async fn work(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        mut notices: mpsc::Receiver<Notice>,
        mut done: mpsc::Receiver<Background>,
    ) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot receive signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot receive signals")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot receive signals")?;
        let (changed, mut changes) = mpsc::channel(1);
        // Kept, so that a directory that can't be watched does not end the waiting for its changes at once.
        let _keep = changed.clone();
        if let Err(error) = watch_directory(self.config.policies_dir.clone(), changed) {
            let directory = self.config.policies_dir.display();
            tracing::warn!(%error, "cannot watch the policy directory {directory}; send SIGHUP to read it again");
        }
        let mut progress = self.node.directory.progress();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(request) = requests.recv() => requests::answer(self, request).await,
                Some(notice) = notices.recv() => self.notice(notice),
                Some(Background::Emptied(number, killed)) = done.recv() => self.emptied(number, killed),
                Some(()) = changes.recv() => self.reload().await,
                Ok(()) = progress.changed() => {}
                _ = tick.tick() => self.tick().await,
                _ = hangup.recv() => {
                    self.reload().await;
                    if let Err(error) = self.node.stream.reopen().await {
                        tracing::error!(%error, "cannot open the audit log again; the old one stays in use");
                    }
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            self.settle();
            self.node.write().await;
        }
        Ok(())
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Superfluous(number) => {
                if let Err(error) = self.node.programs.remove_agent(number) {
                    tracing::warn!(%error, "cannot remove counters that no agent needs");
                }
            }
            Notice::Released(cgroup) => {
                let number = self.node.directory.table().by_cgroup(cgroup).map(|agent| agent.number);
                if let Some(number) = number {
                    self.node.leave(number, "exited");
                }
            }
            Notice::BindingLost(cgroup) => {
                tracing::error!(cgroup, "a cgroup could not be bound; everything is denied in it");
                self.lasting.insert(
                    "cgroups could not be bound: everything is denied in them; raise the setting bindings".to_owned(),
                );
                self.refresh();
            }
        }
    }

    fn emptied(&mut self, number: u32, killed: Result<bool, String>) {
        match killed {
            Ok(killed) => {
                if let Some((_, found)) = self.ending.get_mut(&number) {
                    *found = killed;
                }
                self.node.leave(number, "exited");
            }
            Err(error) => {
                tracing::error!(error, "cannot end an agent");
                if let Some((Some(answer), _)) = self.ending.remove(&number) {
                    let _ = answer.send(Err(api::Refusal::Failed(format!("cannot end the agent: {error}"))));
                }
            }
        }
    }

    /// Takes leave of agents, and answers who waits for it.
    fn settle(&mut self) {
        for (agent, counts) in self.node.settle() {
            if agent.origin == Origin::Made {
                if let Err(error) = self.node.directory.hierarchy.remove(&agent.cgroup) {
                    tracing::warn!(%error, cgroup = agent.cgroup, "cannot remove the cgroup of an agent that is gone");
                }
            }
            if let Some((Some(answer), killed)) = self.ending.remove(&agent.number) {
                let shown = super::view::agent(self, &agent);
                let _ = answer.send(Ok(api::Agent { counts, killed, ..shown }));
            }
        }
    }

    async fn tick(&mut self) {
        self.node.check_losses();
        let failing = self.node.stream.totals().failing.load(Ordering::Relaxed);
        if failing {
            // Tries whether the log can be written again, where no record comes that would.
            self.node.stream.write(Vec::new()).await;
        }
        self.refresh();
    }

    /// Looks at everything that can be wrong, and tells of a change.
    pub fn refresh(&mut self) {
        let mut reasons: Vec<String> = self.lasting.iter().cloned().collect();
        if self.node.stream.totals().failing.load(Ordering::Relaxed) {
            reasons.push(format!("the audit log {} can't be written", self.config.audit_log.display()));
        }
        if self.level == Level::Full {
            let hooks = self.node.programs.hooks();
            let detached = hooks.iter().filter(|state| state.status != HookStatus::Attached);
            reasons.extend(detached.map(|state| format!("hook {} is not attached", state.hook.name)));
        }
        let well = reasons.is_empty();
        let readiness = Readiness {
            ready: self.started && well,
            reasons: if self.started { reasons } else { vec!["starting".to_owned()] },
        };
        if *self.readiness.borrow() != readiness {
            if self.started {
                self.tell(if readiness.ready { "ready" } else { "degraded" }, readiness.reasons.clone());
            }
            self.readiness.send_replace(readiness);
        }
    }

    fn tell(&mut self, action: &str, messages: Vec<String>) {
        self.node.tell(Body::Monitor(MonitorChange {
            action: action.to_owned(),
            version: VERSION.to_owned(),
            enforcement: self.level.name().to_owned(),
            messages,
        }));
    }

    /// Writes what is left to write, within the limit.
    async fn stop(mut self, pump: super::pump::Running) {
        let limit = Duration::from_secs(self.config.drain_seconds);
        self.readiness.send_replace(Readiness { ready: false, reasons: vec!["stopping".to_owned()] });
        self.node.check_losses();
        let agents = self.node.directory.table().iter().filter(|agent| agent.origin != Origin::Directory).count();
        let messages = match agents {
            0 => Vec::new(),
            agents => vec![format!("{agents} agents are not guarded any more: the programs end with the daemon")],
        };
        let stream = self.node.stream.clone();
        let drained = tokio::time::timeout(limit, async {
            // The programs go first, so that nothing comes after what is read last.
            let pumped = tokio::task::spawn_blocking(move || pump.stop()).await;
            if let Err(error) = pumped {
                tracing::error!(%error, "reading the last events panicked");
            }
            self.tell("stopped", messages);
            self.node.write().await;
            stream.flush().await;
        });
        if drained.await.is_err() {
            tracing::error!("stopped before all records were written: more than {limit:?} would have been needed");
        }
    }
}

/// Something bound to this slot, with nothing given for it.
pub fn wanted(slot: u32, origin: Origin) -> Wanted {
    Wanted { id: None, name: None, labels: std::collections::BTreeMap::new(), slot, mode: None, origin }
}

/// Whether an agent can be ended by request.
pub fn can_end(agent: &Agent) -> bool {
    matches!(agent.origin, Origin::Made | Origin::Bound)
}
