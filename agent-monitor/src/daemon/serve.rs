//! The daemon: one task that owns the node and does one thing at a time. What takes long (compiling, killing) is done
//! elsewhere and comes back as a message.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::catalogue::{Catalogue, Read};
use super::configured::Configured;
use super::library::{Compiler, Files};
use super::loss::Awaited;
use super::misses;
use super::node::Node;
use super::notify::notify;
use super::pump::{Marks, Notice, Refused};
use super::selftest::Outcome;
use super::start::{StartError, Started, Stay, start};
use super::watch::{CgroupWatch, watch as watch_directory};
use super::{VERSION, requests};
use crate::bind::{Agent, Origin};
use crate::config::Config;
use crate::control::{
    Answer, Health, Limits, Listeners, Lock, Readiness, Request, RequestTotals, api, control_router, metrics_router,
    serve,
};
use crate::enrich::Enricher;
use crate::sink::metrics::Metrics;
use crate::sink::{Options, Stream};
use crate::support::{Level, kernel_release};

/// Requests that may wait.
const REQUESTS: usize = 64;
/// Followers of the events at once.
const FOLLOWERS: usize = 32;
/// How often counters that nobody tells of are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What is wrong while some cgroup could not be bound.
pub const UNBOUND: &str = "cgroups could not be bound: everything is denied in them; raise the setting bindings";

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
    /// The agents of the configuration.
    pub configured: Vec<Configured>,
    /// Tells where these may have been made anew; none where the kernel does not.
    pub cgroup_watch: Option<CgroupWatch>,
    /// What stays wrong until the daemon is started again.
    pub lasting: BTreeSet<String>,
    /// Everything is bound that must be bound before the daemon is ready.
    pub started: bool,
    /// The policy directory is being read.
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
    /// The policy directory was read.
    Read(Result<Box<Read>, String>),
    /// What was in the rings is written; and what the counters said before.
    Passed(Vec<Awaited>),
    /// The policy of an agent of the configuration is compiled.
    Configured(usize, Result<requests::Compiled, api::Refusal>),
    /// The policy of a request is compiled.
    Compiled(Box<(api::CreateAgent, Result<requests::Compiled, api::Refusal>, Answer<api::Agent>)>),
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
    let limits = Limits { clients: 64, head: Duration::from_secs(10), lifetime: None };
    let router = control_router(sender.clone(), totals.clone());
    let mut serving = JoinSet::new();
    serving.spawn(serve(control, router, limits, totals.clone(), stopped.clone()));
    if let Some(metrics) = metrics {
        let limits = Limits { lifetime: Some(Duration::from_secs(60)), ..limits };
        let router = metrics_router(Health { requests: sender, readiness: ready });
        serving.spawn(serve(metrics, router, limits, totals.clone(), stopped));
    }
    let result = guarded(&config, allow_partial, stream.clone(), readiness, totals, requests).await;
    notify("STOPPING=1");
    let _ = stop.send(true);
    stream.flush().await;
    // The last way into the stream: followers get what is written, and then the end.
    drop(stream);
    while serving.join_next().await.is_some() {}
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
    let compiler = Compiler {
        files: Files::new(&config.policies_dir),
        protected: super::protected(config, &[]),
        also: Vec::new(),
    };
    let started = start(config, allow_partial || config.allow_partial, Stay::Node, &stream, &compiler).await?;
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
        configured: Vec::new(),
        cgroup_watch: None,
        lasting: BTreeSet::new(),
        started: false,
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
    let result = match daemon.take_charge().await {
        Ok(()) => daemon.work(requests, notices, done).await,
        Err(error) => Err(error),
    };
    daemon.stop(pump).await;
    Ok(result?)
}

impl Daemon {
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
        let (made, mut remade) = mpsc::channel(1);
        let _keep_too = made.clone();
        if !self.config.agents.is_empty() {
            let watch = CgroupWatch::start(made);
            let watch = watch
                .inspect_err(|error| tracing::warn!(%error, "cannot watch cgroups: they are looked at every second"));
            self.cgroup_watch = watch.ok();
            self.check_configured();
        }
        let mut progress = self.node.stream.progress();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut misses = interval(misses::EVERY);
        misses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(request) = requests.recv() => requests::answer(self, request),
                Some(notice) = notices.recv() => self.notice(notice),
                Some(done) = done.recv() => match done {
                    Background::Emptied(number, killed) => self.emptied(number, killed),
                    Background::Read(read) => self.take_read(read),
                    Background::Passed(awaited) => self.unsettled.extend(self.node.tell_missing(&awaited)),
                    Background::Configured(index, policy) => self.finish_configured(index, policy),
                    Background::Compiled(compiled) => {
                        let (request, policy, answer) = *compiled;
                        requests::finish_creating(self, request, policy, answer);
                    }
                },
                Some(()) = changes.recv() => self.reload(),
                Some(()) = remade.recv() => self.check_configured(),
                Ok(()) = progress.changed() => {}
                _ = tick.tick() => self.tick().await,
                _ = misses.tick() => self.check_misses(),
                _ = hangup.recv() => {
                    self.reload();
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
            // A number may have become an agent's since: see `renumber`.
            Notice::Superfluous(number) if self.node.directory.table().get(number).is_some() => {}
            Notice::Superfluous(number) => {
                if let Err(error) = self.node.programs.remove_agent(number) {
                    tracing::warn!(%error, "cannot remove counters that no agent needs");
                }
            }
            Notice::Released(cgroup) => {
                let agent = self.node.directory.table().by_cgroup(cgroup).map(|agent| (agent.number, agent.origin));
                if let Some((number, origin)) = agent {
                    self.node.leave(number, "exited");
                    if origin == Origin::Bound {
                        self.check_configured();
                    }
                }
            }
            Notice::BindingLost(cgroup) => {
                tracing::error!(cgroup, "a cgroup could not be bound; everything is denied in it");
                self.lasting.insert(UNBOUND.to_owned());
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
            if agent.origin == Origin::Made
                && let Some(path) = agent.cgroup.as_deref()
                && let Err(error) = self.node.directory.hierarchy.remove(path)
            {
                tracing::warn!(%error, cgroup = agent.shown(), "cannot remove the cgroup of an agent that is gone");
            }
            if let Some((Some(answer), killed)) = self.ending.remove(&agent.number) {
                let shown = super::view::agent(self, &agent);
                let _ = answer.send(Ok(api::Agent { counts, killed, ..shown }));
            }
        }
    }

    /// Looks for what an earlier daemon did not write, once all is written that is in the rings now.
    fn look_for_missing(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let awaited = self.node.awaited(&std::mem::take(&mut self.unsettled));
        let (marks, background) = (self.marks.clone(), self.background.clone());
        tokio::spawn(async move {
            marks.pass().await;
            let _ = background.send(Background::Passed(awaited)).await;
        });
    }

    async fn tick(&mut self) {
        self.look_for_missing();
        self.node.check_losses();
        self.check_configured();
        self.lose_paths();
        let last = self.node.stream.totals().last_seq.load(Ordering::Relaxed);
        if last != self.checkpoint {
            self.checkpoint = last;
            self.node.checkpoint().await;
        }
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
        if let Some(failure) = self.node.state.as_ref().and_then(|state| state.failure()) {
            reasons.push(format!("{} can't be written: {failure}", self.config.state_dir.display()));
        }
        reasons.extend(self.catalogue.reasons(&self.node.policies));
        reasons.extend(self.gaps());
        reasons.extend(self.configured.iter().filter_map(|one| one.why().cloned()));
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

    /// Reads how often programs were skipped, and tells of a change.
    pub fn check_misses(&mut self) {
        for (hook, count) in self.node.check_misses(&self.config.roots.proc) {
            tracing::error!(hook, count, "the kernel skipped a program, and what it should have judged passed");
        }
        self.refresh();
    }

    /// Why less is enforced than was at start: something passes, or passed, that nobody judged.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = self.node.misses.reasons();
        if self.level == Level::Full {
            let hooks = self.node.programs.hooks();
            let detached = hooks.iter().filter(|state| state.lacking());
            gaps.extend(detached.map(|state| format!("hook {} is not attached", state.hook.name)));
        }
        gaps
    }

    fn tell(&mut self, action: &str, messages: Vec<String>) {
        self.node.tell_monitor(action, self.level, messages);
    }

    /// Writes what is left to write, within the limit.
    async fn stop(mut self, pump: super::pump::Running) {
        let limit = Duration::from_secs(self.config.drain_seconds);
        self.check_misses();
        self.readiness.send_replace(Readiness { ready: false, reasons: vec!["stopping".to_owned()] });
        self.node.check_losses();
        let agents = super::view::agent_count(&self);
        let messages = vec![format!("{agents} agents stay guarded: enforcement goes on without the daemon")];
        let stream = self.node.stream.clone();
        let drained = tokio::time::timeout(limit, async {
            // What comes after this stays in the rings, for the next daemon.
            let pumped = tokio::task::spawn_blocking(move || pump.stop()).await;
            if let Err(error) = pumped {
                tracing::error!(%error, "reading the last events panicked");
            }
            self.tell("stopped", messages);
            self.node.write().await;
            self.node.checkpoint().await;
            stream.flush().await;
        });
        if drained.await.is_err() {
            tracing::error!("stopped before all records were written: more than {limit:?} would have been needed");
        }
    }
}

/// Whether an agent can be ended by request.
pub fn can_end(agent: &Agent) -> bool {
    matches!(agent.origin, Origin::Made | Origin::Bound)
}
