//! Making and binding agents, and binding them anew, once their policy is compiled.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_monitor_common::class::Mode;
use agent_monitor_policy::Document;

use super::{end, no_agent};
use crate::bind::{Agent, Cgroup, Limit, Now, Origin, from_root, shown};
use crate::control::Answer;
use crate::control::api::{self, CreateAgent, Refusal};
use crate::daemon::compiler::Compiler;
use crate::daemon::library::Sent;
use crate::daemon::node::{Renewal, Wanted};
use crate::daemon::policies::{Candidate, Instance, Source};
use crate::daemon::serve::{Background, Daemon};
use crate::daemon::{random_name, view};
use crate::seccomp;

/// Longest time that a cgroup can be bound for: 366 days. Who means longer means without an end.
const TTL_SECONDS: u64 = 366 * 24 * 60 * 60;

/// What is known of the policy that a request names or brings.
pub enum Found {
    /// It is in this slot.
    Loaded(u32),
    /// It must be compiled.
    Document(Document),
}

/// Makes an agent, once its policy is compiled.
pub(super) fn start_creating(daemon: &mut Daemon, request: CreateAgent, answer: Answer<api::Bound>) {
    if let Err(refusal) = check_ttl(&request) {
        drop(answer.send(Err(refusal)));
        return;
    }
    match find(daemon, &request) {
        Ok(Found::Loaded(slot)) => finish_creating(daemon, request, Ok(Compiled::Loaded(slot)), answer),
        Ok(Found::Document(document)) => {
            let (compiler, background) = (daemon.node.compiler.clone(), daemon.background.clone());
            tokio::spawn(async move {
                let compiled = compile(compiler, document, &request).await.map(Compiled::New);
                let _ = background.send(Background::Compiled(Box::new((request, compiled, answer)))).await;
            });
        }
        Err(refusal) => drop(answer.send(Err(refusal))),
    }
}

/// The policy of a request, when it is there to be bound.
pub enum Compiled {
    /// It is in this slot.
    Loaded(u32),
    /// It was compiled for the request.
    New(Arc<Candidate>),
}

/// Makes an agent whose policy is compiled, and answers.
pub fn finish_creating(
    daemon: &mut Daemon,
    request: CreateAgent,
    policy: Result<Compiled, Refusal>,
    answer: Answer<api::Bound>,
) {
    if policy.as_ref().is_ok_and(|policy| is_stale(daemon, &request, policy)) {
        return start_creating(daemon, request, answer);
    }
    let before = renewable(daemon, &request);
    let created = policy.and_then(|policy| match &before {
        Some(before) => renew(daemon, before, request, policy),
        None => create(daemon, request, policy),
    });
    let created = created.map(|agent| {
        let image = daemon.node.directory.image(agent.slot);
        let filter = image.and_then(|image| seccomp::Filter::of_image(&image.bytes, agent.mode).ok());
        let agent = api::Agent { filter, ..view::agent(daemon, &agent) };
        api::Bound { renewed: before.is_some(), agent }
    });
    if let Err(Ok(bound)) = answer.send(created)
        && !bound.renewed
    {
        // Who asked is gone: nobody would ever end it.
        end(daemon, &bound.agent.id, None);
    }
}

/// The agent that a request binds for a time again: one whose own cgroup it names, and that was bound for a time.
fn renewable(daemon: &Daemon, request: &CreateAgent) -> Option<Agent> {
    let path = request.cgroup.as_deref().filter(|_| request.ttl_seconds.is_some())?;
    let cgroup = daemon.node.directory.hierarchy.look_up(path).ok()?;
    let agent = daemon.node.directory.table().by_cgroup(cgroup.id).cloned();
    let is_kept = |agent: &Agent| !daemon.ending.contains_key(&agent.number) && !daemon.node.is_leaving(agent.number);
    agent.filter(|agent| agent.origin == Origin::Bound && agent.limit.is_some() && is_kept(agent))
}

/// Binds an agent for a time again, under the same id.
fn renew(daemon: &mut Daemon, before: &Agent, request: CreateAgent, policy: Compiled) -> Result<Agent, Refusal> {
    let mode = request.mode.as_deref().map(mode).transpose()?;
    check_texts(&request)?;
    let limit = limit(daemon, &request);
    let (slot, _) = slot(daemon, policy)?;
    let identity = &before.identity;
    let labels = if request.labels.is_empty() { identity.labels.clone() } else { request.labels };
    let name = request.name.or_else(|| Some(identity.name.clone()));
    let renewed = daemon.node.renew_agent(before.number, Renewal { slot, mode, name, labels, limit });
    for slot in [before.slot, slot] {
        daemon.node.drop_unused(slot);
    }
    renewed.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
    let agent = daemon.node.directory.table().get(before.number).cloned();
    agent.ok_or_else(|| no_agent(&identity.id))
}

/// When what a request binds ends.
fn limit(daemon: &Daemon, request: &CreateAgent) -> Option<Limit> {
    let ttl = Duration::from_secs(request.ttl_seconds?);
    Some(Limit::after(ttl, &Now::read(&daemon.boot_id)))
}

/// Whether the policy that a request names was changed or deleted while it was compiled for it.
pub fn is_stale(daemon: &Daemon, request: &CreateAgent, policy: &Compiled) -> bool {
    match (policy, &request.policy) {
        (Compiled::New(candidate), Some(name)) => {
            let now = daemon.catalogue.document(name);
            !now.is_some_and(|now| now.path == candidate.path && now.text == candidate.text)
        }
        _ => false,
    }
}

/// Makes an agent, or binds a cgroup, and waits for its policy to be compiled.
///
/// # Errors
/// What stands against it.
pub async fn create_now(daemon: &mut Daemon, request: CreateAgent) -> Result<Agent, Refusal> {
    let policy = compile_now(daemon, &request).await?;
    create(daemon, request, policy)
}

/// Binds an agent that was taken over to what the configuration says now, without a moment in which it is bound to nothing.
///
/// # Errors
/// What stands against it.
pub async fn renew_now(daemon: &mut Daemon, number: u32, request: CreateAgent) -> Result<(), Refusal> {
    let policy = compile_now(daemon, &request).await?;
    let mode = request.mode.as_deref().map(mode).transpose()?;
    check_texts(&request)?;
    let (slot, _) = slot(daemon, policy)?;
    let before = daemon.node.directory.table().get(number).map(|agent| agent.slot);
    let renewal = Renewal { slot, mode, name: request.name, labels: request.labels, limit: None };
    let renewed = daemon.node.renew_agent(number, renewal);
    renewed.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
    before.into_iter().for_each(|slot| daemon.node.drop_unused(slot));
    Ok(())
}

/// The policy of a request; waits until it is compiled.
async fn compile_now(daemon: &Daemon, request: &CreateAgent) -> Result<Compiled, Refusal> {
    match find(daemon, request)? {
        Found::Loaded(slot) => Ok(Compiled::Loaded(slot)),
        Found::Document(document) => compile(daemon.node.compiler.clone(), document, request).await.map(Compiled::New),
    }
}

/// The slot of a policy, loaded where it is not yet, and its name.
fn slot(daemon: &mut Daemon, policy: Compiled) -> Result<(u32, String), Refusal> {
    let slot = match policy {
        Compiled::Loaded(slot) => slot,
        Compiled::New(candidate) => match daemon.node.policies.same(&candidate, &Source::Agent) {
            Some(same) => same.slot,
            None => daemon
                .node
                .load(Source::Agent, candidate)
                .map_err(|error: anyhow::Error| Refusal::Failed(format!("{error:#}")))?,
        },
    };
    // It was there when the request came, and may have been removed while another policy was compiled.
    let name = daemon.node.policies.get(slot).map(|one| one.name().to_owned());
    name.map(|name| (slot, name)).ok_or_else(|| Refusal::NotFound("the policy was removed meanwhile".to_owned()))
}

/// Makes an agent, or binds a cgroup, whose policy is there.
///
/// # Errors
/// What stands against it.
pub fn create(daemon: &mut Daemon, request: CreateAgent, policy: Compiled) -> Result<Agent, Refusal> {
    let mode = request.mode.as_deref().map(mode).transpose()?;
    check_texts(&request)?;
    let cgroup = request.cgroup.as_deref().map(|path| bindable(daemon, path)).transpose()?;
    let limit = limit(daemon, &request);
    let (slot, name) = slot(daemon, policy)?;
    let wanted = Wanted {
        id: None,
        name: request.name,
        labels: request.labels,
        slot,
        mode,
        origin: if cgroup.is_some() { Origin::Bound } else { Origin::Made },
        limit,
    };
    let made = match cgroup {
        Some(cgroup) => daemon.node.bind(&cgroup, wanted),
        None => {
            let (root, suffix) = (daemon.config.agents_root.trim_matches('/').to_owned(), random_name());
            let directory = format!("{root}/{name}");
            let has_directory = daemon.node.directory.hierarchy.look_up(&directory).is_ok();
            let path = if has_directory { format!("{directory}/{suffix}") } else { format!("{root}/{name}-{suffix}") };
            daemon.node.make(&path, Wanted { id: Some(format!("{name}-{suffix}")), ..wanted })
        }
    };
    made.map_err(|error| {
        daemon.node.drop_unused(slot);
        Refusal::Failed(format!("{error:#}"))
    })
}

/// The policy that a request names or brings.
///
/// # Errors
/// There is none, or it needs more than is given.
pub fn find(daemon: &Daemon, request: &CreateAgent) -> Result<Found, Refusal> {
    match (&request.policy, request.documents.first()) {
        (Some(_), Some(_)) => Err(Refusal::Invalid("give either policy or documents, not both".to_owned())),
        (None, None) => Err(Refusal::Invalid("policy is missing: give the name of one that is loaded".to_owned())),
        (None, Some(first)) => Ok(Found::Document(Document { path: first.path.clone(), text: first.text.clone() })),
        (Some(name), None) => {
            // What is built in lets nothing be touched, and has no document.
            let is_shared = |known: &&Instance| {
                request.variables.is_empty() && (request.protect.is_empty() || known.source == Source::Builtin)
            };
            if let Some(known) = daemon.node.policies.named(name).filter(is_shared) {
                return Ok(Found::Loaded(known.slot));
            }
            let directory = daemon.config.policies_dir.display();
            let Some(found) = daemon.catalogue.document(name) else {
                let message =
                    format!("there is no policy {name}: put it into {directory}, or see agent-monitor status");
                return Err(Refusal::NotFound(message));
            };
            if request.variables.is_empty() && daemon.catalogue.needs_values(name) {
                let message = format!("policy {name} has variables without a value: give them with --var NAME=VALUE");
                return Err(Refusal::Invalid(message));
            }
            Ok(Found::Document(found.clone()))
        }
    }
}

/// Compiles the policy of a request.
///
/// # Errors
/// It is refused.
pub async fn compile(compiler: Compiler, document: Document, request: &CreateAgent) -> Result<Arc<Candidate>, Refusal> {
    let (documents, variables) = (request.documents.clone(), request.variables.clone());
    let compiler = compiler.protecting(&request.protect);
    let compiled = tokio::task::spawn_blocking(move || {
        let library = Sent { documents: &documents, files: compiler.files.clone() };
        compiler.compile(document, &library, &variables).map_err(|errors| errors.to_string())
    });
    match compiled.await {
        Ok(Ok(compiled)) => Ok(Arc::new(compiled)),
        Ok(Err(errors)) => Err(Refusal::Invalid(format!("the policy is refused:\n{errors}"))),
        Err(error) => Err(Refusal::Failed(format!("compiling the policy panicked: {error}"))),
    }
}

/// The cgroup, if it may be bound: it lies outside the agents root, no agent has it, and it holds neither the whole
/// machine nor the daemon itself.
fn bindable(daemon: &Daemon, path: &str) -> Result<Cgroup, Refusal> {
    let hierarchy = &daemon.node.directory.hierarchy;
    let found = hierarchy.look_up(path);
    let cgroup = found.map_err(|error| Refusal::NotFound(format!("cannot find the cgroup {path}: {error}")))?;
    let path = shown(&cgroup.path);
    let root = from_root(&daemon.config.agents_root);
    if cgroup.path.starts_with(&root) || root.starts_with(&cgroup.path) {
        return Err(Refusal::Conflict(format!(
            "cgroup {path} is, holds or lies below the agents root: the kernel binds what is made there"
        )));
    }
    if own_cgroup(&daemon.config.roots.proc).is_some_and(|own| own.starts_with(&cgroup.path)) {
        return Err(Refusal::Conflict(format!("cgroup {path} holds the daemon itself, which would be bound too")));
    }
    let table = daemon.node.directory.table();
    // By the id: where an agent's cgroup was, another one may be now.
    let overlaps = |agent: &&Agent| {
        agent.place().is_some_and(|other| {
            (cgroup.path.starts_with(&other.path) || other.path.starts_with(&cgroup.path))
                && match hierarchy.look_up(&other.path) {
                    Ok(now) => now.id == other.id,
                    Err(error) => error.kind() != ErrorKind::NotFound,
                }
        })
    };
    if let Some(agent) = table.iter().find(overlaps) {
        let (id, bound) = (&agent.identity.id, agent.shown());
        return Err(Refusal::Conflict(format!("cgroup {path} is already bound: agent {id} has {bound}")));
    }
    drop(table);
    Ok(cgroup)
}

fn own_cgroup(proc: &Path) -> Option<PathBuf> {
    let text = std::fs::read(proc.join("self/cgroup")).ok()?;
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    path.map(|path| PathBuf::from(OsStr::from_bytes(path)))
}

fn mode(word: &str) -> Result<Mode, Refusal> {
    Mode::from_name(word).ok_or_else(|| Refusal::Invalid(format!("unknown mode {word}: use enforce or audit")))
}

/// A time is for a cgroup that is there, and is neither none nor without end.
fn check_ttl(request: &CreateAgent) -> Result<(), Refusal> {
    match request.ttl_seconds {
        Some(_) if request.cgroup.is_none() => {
            Err(Refusal::Invalid("ttl_seconds is for a cgroup that is there: give cgroup, too".to_owned()))
        }
        Some(seconds) if !(1..=TTL_SECONDS).contains(&seconds) => {
            Err(Refusal::Invalid(format!("ttl_seconds = {seconds} is not between 1 and {TTL_SECONDS} (366 days)")))
        }
        _ => Ok(()),
    }
}

/// Names and labels go into every record of the agent: they may not be large, nor hold what changes how a line is shown.
fn check_texts(request: &CreateAgent) -> Result<(), Refusal> {
    const BYTES: usize = 256;
    const LABELS: usize = 64;
    let labels: &BTreeMap<String, String> = &request.labels;
    if labels.len() > LABELS {
        return Err(Refusal::Invalid(format!("{} labels are more than {LABELS}", labels.len())));
    }
    let texts = labels.iter().flat_map(|(key, value)| [key, value]).chain(&request.name);
    for text in texts {
        if text.len() > BYTES || text.chars().any(char::is_control) {
            return Err(Refusal::Invalid(format!(
                "name or label {text:?} is longer than {BYTES} bytes or has control characters"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_bounded_and_plain() {
        let named = |name: &str| CreateAgent { name: Some(name.to_owned()), ..CreateAgent::default() };
        assert!(check_texts(&named("fix-issue-12")).is_ok());
        assert!(check_texts(&named("a\nb")).is_err());
        assert!(check_texts(&named(&"x".repeat(257))).is_err());
    }

    #[test]
    fn a_time_is_bounded_and_for_a_cgroup_that_is_there() {
        let ask = |cgroup: Option<&str>, ttl_seconds| {
            let request = CreateAgent { cgroup: cgroup.map(str::to_owned), ttl_seconds, ..CreateAgent::default() };
            check_ttl(&request).is_ok()
        };
        assert!(ask(None, None) && ask(Some("/a"), Some(1)) && ask(Some("/a"), Some(TTL_SECONDS)));
        assert!(!ask(None, Some(1)) && !ask(Some("/a"), Some(0)) && !ask(Some("/a"), Some(TTL_SECONDS + 1)));
    }

    #[test]
    fn an_unknown_mode_is_told_with_those_that_exist() {
        assert_eq!(mode("audit"), Ok(Mode::Audit));
        assert!(matches!(mode("learn"), Err(Refusal::Invalid(message)) if message.contains("enforce or audit")));
    }
}
