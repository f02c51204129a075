//! `run` without a daemon: programs, cgroup and records are ours, and end with us; see `guard` for how, where we are killed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::child;
use super::guard::Guard;
use super::report::Report;
use super::{Ended, mode_of};
use crate::bind::{Agent, Origin};
use crate::cli::Run;
use crate::cmd::policy::document;
use crate::config::Config;
use crate::daemon::compiler::Compiler;
use crate::daemon::node::{Node, Wanted};
use crate::daemon::policies::{Candidate, Source};
use crate::daemon::{self, Notice, Started, Stay, Stop, random_name};
use crate::record::Counts;
use crate::seccomp::Filter;
use crate::sink::{LogOptions, Options, Stream, Tap};

/// Longest wait for killed processes to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Name of the cgroup for guards, below that of the agents.
const GUARDS: &str = "guards";

/// Runs the command.
pub async fn run(config: &Config, options: &Run) -> Result<Ended> {
    let more: Vec<&Path> = options.record.as_deref().into_iter().collect();
    let compiler = Compiler::new(&config.policies_dir, daemon::protected(config, &more));
    let policy = policy(config, options, &compiler)?;
    let id = format!("{}-{}", policy.name, random_name());
    let report = Arc::new(Mutex::new(Report::default()));
    let stream_options = Options {
        log: options.record.clone().map(|path| LogOptions::beside(path, config)),
        tap: Some(tap(report.clone())),
        node_name: config.node_name.as_str().into(),
    };
    let (stream, thread) = Stream::start(stream_options).with_context(|| {
        format!("cannot write records to {}", options.record.as_deref().unwrap_or(Path::new("")).display())
    })?;
    let allow_partial = options.allow_partial || config.allow_partial;
    // Signals are the command's, once there is one.
    let stop = Stop::never();
    let mut started = daemon::start(config, allow_partial, Stay::Process, &stream, &compiler, &stop).await?;
    let (ended, guard) = agent(config, options, &mut started, policy, id).await;
    tell_misses(config, &mut started).await;
    tokio::task::spawn_blocking(move || {
        started.pump.stop();
        drop(started.node);
    })
    .await
    .context("stopping panicked")?;
    drop(stream);
    // Elsewhere: the task that carries the node's records to that thread runs in this one, and holds a way into the stream.
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        bail!("the thread that writes records panicked");
    }
    // Last: what it holds is not detached by us then, which takes the kernel ten seconds.
    if let Some(guard) = guard {
        guard.dismiss().await;
    }
    let (code, pid, killed, counts) = ended?;
    let report = std::mem::take(&mut *report.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Ended { code, pid, killed, counts, report })
}

/// Records that the kernel skipped programs, where it did. Once, at the end: nobody could do anything about it meanwhile.
async fn tell_misses(config: &Config, started: &mut Started) {
    let node = &mut started.node;
    node.check_misses(&config.roots.proc);
    let reasons = node.misses.reasons();
    if !reasons.is_empty() {
        node.tell_monitor("degraded", started.level, reasons);
        node.flush().await;
    }
}

fn tap(report: Arc<Mutex<Report>>) -> Tap {
    Box::new(move |record| report.lock().unwrap_or_else(PoisonError::into_inner).add(record))
}

fn policy(config: &Config, options: &Run, compiler: &Compiler) -> Result<Candidate> {
    let document = document(&options.policy, config)?;
    let compiled = compiler.compile(document, &compiler.files, &options.agent.variables.values());
    let policy = compiled.map_err(|errors| anyhow!("cannot use the policy:\n{errors}"))?;
    for message in &policy.messages {
        eprintln!("{message}");
    }
    Ok(policy)
}

/// Exit status and process id of the command, whether something was killed that it had left, what was counted.
type OfAgent = Result<(u8, u32, bool, Counts)>;

/// Makes the agent, runs the command, and leaves nothing of it, whatever happens; gives the guard that is to be dismissed.
async fn agent(
    config: &Config,
    options: &Run,
    started: &mut Started,
    policy: Candidate,
    id: String,
) -> (OfAgent, Option<Guard>) {
    let (agent, filter) = match make(config, options, &mut started.node, policy, id).await {
        Ok(made) => made,
        Err(error) => return (Err(error), None),
    };
    // Before the command, and after all that is attached for it.
    let guard = Guard::start(&mut started.node, &format!("{}/{GUARDS}", config.run_root), &agent).await;
    let (guard, ran) = match guard {
        Ok(guard) => (Some(guard), command(options, &filter, started, &agent).await),
        Err(error) => (None, Err(error)),
    };
    match clean(&mut started.node, &agent).await {
        Ok((killed, counts)) => (ran.map(|(code, pid)| (code, pid, killed, counts)), guard),
        // Where something is left the guard goes on when we end.
        Err(error) => (ran.and(Err(error)), None),
    }
}

async fn make(
    config: &Config,
    options: &Run,
    node: &mut Node,
    policy: Candidate,
    id: String,
) -> Result<(Agent, Filter)> {
    let mode = options.agent.mode.as_deref().map(mode_of).transpose()?;
    let filter = Filter::of_image(&policy.image(0), mode.unwrap_or(policy.mode))?;
    let slot = node.load(Source::Agent, Arc::new(policy))?;
    let wanted = Wanted {
        id: Some(id.clone()),
        name: options.agent.name.clone(),
        labels: options.agent.labels(),
        slot,
        mode,
        origin: Origin::Made,
        limit: None,
    };
    let agent = node.make(&format!("{}/{id}", config.run_root), wanted)?;
    node.write();
    Ok((agent, filter))
}

async fn command(options: &Run, filter: &Filter, started: &mut Started, agent: &Agent) -> Result<(u8, u32)> {
    let directory = started.node.directory.clone();
    let path = agent.path()?;
    let mut running = child::start(&directory.hierarchy.directory(path), filter, options).await?;
    let pid = running.pid;
    let insist = || {
        if let Err(error) = directory.hierarchy.kill(path) {
            tracing::warn!(%error, "cannot kill the agent");
        }
    };
    let wait = running.wait(insist);
    tokio::pin!(wait);
    loop {
        tokio::select! {
            code = &mut wait => return Ok((code?, pid)),
            Some(notice) = started.notices.recv() => {
                if let Notice::BindingLost(cgroup) = notice {
                    tracing::warn!(cgroup, "a cgroup could not be bound; everything is denied in it");
                }
            }
        }
    }
}

/// Kills what is left, waits for the last events, removes the cgroup.
async fn clean(node: &mut Node, agent: &Agent) -> Result<(bool, Counts)> {
    let (directory, path) = (node.directory.clone(), agent.path()?.to_owned());
    let emptied = tokio::task::spawn_blocking(move || directory.hierarchy.empty(&path, KILL_LIMIT));
    let killed = emptied.await.context("emptying the cgroup panicked")?;
    let killed = killed.with_context(|| format!("cannot kill what is left in the cgroup {}", agent.shown()))?;
    // Before the cgroup goes, because its binding goes with it.
    node.leave(agent.number, "exited");
    let mut progress = node.stream.progress();
    let counts = loop {
        if let Some((_, counts)) = node.settle().into_iter().find(|(left, _)| left.number == agent.number) {
            break counts;
        }
        // Events wake us; the time is for those that never come, which settling gives up after a limit of its own.
        let _ = tokio::time::timeout(Duration::from_millis(200), progress.changed()).await;
    };
    node.check_losses();
    node.flush().await;
    let removed = node.directory.hierarchy.remove(agent.path()?);
    removed.with_context(|| format!("cannot remove the cgroup {}", agent.shown()))?;
    Ok((killed, counts))
}
