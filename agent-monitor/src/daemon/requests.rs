//! Answers to the requests of the control socket.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_monitor_common::class::Mode;
use agent_monitor_policy::Document;
use tokio::sync::mpsc;

use super::library::{Files, Sent, candidate};
use super::node::{Node, Wanted};
use super::policies::{Candidate, Source};
use super::serve::{Background, Daemon, can_end};
use super::{random_name, view};
use crate::bind::{Agent, Cgroup, Origin};
use crate::control::api::{self, CreateAgent, Refusal};
use crate::control::{Answer, Request};
use crate::sink::follow::{Filter, follow};

/// Longest wait for killed processes to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Lines that may wait for one follower.
const FOLLOWER_LINES: usize = 256;

/// Answers a request. Who asked may be gone: that is no error.
pub async fn answer(daemon: &mut Daemon, request: Request) {
    match request {
        Request::Status(answer) => drop(answer.send(view::status(daemon))),
        Request::Agents(answer) => {
            let mut agents: Vec<Agent> = daemon.node.directory.table().iter().cloned().collect();
            agents.sort_by_key(|agent| agent.number);
            drop(answer.send(agents.iter().map(|agent| view::agent(daemon, agent)).collect()));
        }
        Request::Agent(id, answer) => {
            let found = daemon.node.directory.table().by_id(&id).cloned();
            drop(answer.send(found.map(|agent| view::agent(daemon, &agent)).ok_or_else(|| no_agent(&id))));
        }
        Request::Create(request, answer) => {
            let created = create(daemon, *request).await;
            let created = created.map(|agent| view::agent(daemon, &agent));
            daemon.node.write().await;
            if let Err(Ok(agent)) = answer.send(created) {
                // Nobody would ever end it.
                end(daemon, &agent.id, None);
            }
        }
        Request::Delete(id, answer) => end(daemon, &id, Some(answer)),
        Request::Policies(answer) => drop(answer.send(view::policies(daemon))),
        Request::Policy(name, answer) => {
            let found = view::policy_named(daemon, &name);
            drop(answer.send(found.ok_or_else(|| Refusal::NotFound(format!("there is no policy {name}")))));
        }
        Request::Follow(filter, answer) => start_following(daemon, filter, answer),
        Request::Metrics(answer) => {
            let snapshot = view::snapshot(daemon);
            drop(answer.send(daemon.metrics.text(snapshot)));
        }
    }
}

fn start_following(daemon: &Daemon, filter: api::Follow, answer: Answer<mpsc::Receiver<String>>) {
    let Ok(permit) = daemon.followers.clone().try_acquire_owned() else {
        drop(answer.send(Err(Refusal::TooMany("too many follow the events already".to_owned()))));
        return;
    };
    let (lines, follower) = mpsc::channel(FOLLOWER_LINES);
    let stream = &daemon.node.stream;
    // Subscribed before the answer: who has the answer misses nothing that comes after.
    let records = stream.subscribe();
    let filter = Filter { denied: filter.denied, agent: filter.agent };
    let following = follow(records, filter, daemon.config.node_name.as_str().into(), stream.totals().clone(), lines);
    tokio::spawn(async move {
        following.await;
        drop(permit);
    });
    drop(answer.send(Ok(follower)));
}

/// Makes an agent, or binds a cgroup.
///
/// # Errors
/// What stands against it.
pub async fn create(daemon: &mut Daemon, request: CreateAgent) -> Result<Agent, Refusal> {
    let mode = request.mode.as_deref().map(mode).transpose()?;
    check_texts(&request)?;
    let cgroup = request.cgroup.as_deref().map(|path| bindable(daemon, path)).transpose()?;
    let (slot, name) = slot(daemon, &request).await?;
    let wanted = Wanted {
        id: None,
        name: request.name,
        labels: request.labels,
        slot,
        mode,
        origin: if cgroup.is_some() { Origin::Bound } else { Origin::Made },
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

/// The slot of the policy that a request names or brings, and the policy's name.
async fn slot(daemon: &mut Daemon, request: &CreateAgent) -> Result<(u32, String), Refusal> {
    let document = match (&request.policy, request.documents.first()) {
        (Some(_), Some(_)) => return Err(Refusal::Invalid("give either policy or documents, not both".to_owned())),
        (None, None) => {
            return Err(Refusal::Invalid("policy is missing: give the name of one that is loaded".to_owned()));
        }
        (Some(name), None) => {
            if let Some(known) = daemon.node.policies.named(name).filter(|_| request.variables.is_empty()) {
                return Ok((known.slot, name.clone()));
            }
            let found = daemon.catalogue.document(name).cloned();
            let found = found.ok_or_else(|| {
                let directory = daemon.config.policies_dir.display();
                Refusal::NotFound(format!(
                    "there is no policy {name}: put it into {directory}, or see agent-monitor status"
                ))
            })?;
            if request.variables.is_empty() && daemon.catalogue.needs_values(name) {
                return Err(Refusal::Invalid(format!(
                    "policy {name} has variables without a value: give them with --var NAME=VALUE"
                )));
            }
            found
        }
        (None, Some(first)) => Document { path: first.path.clone(), text: first.text.clone() },
    };
    let candidate = compile(daemon, document, request).await?;
    let name = candidate.policy.name().to_owned();
    if let Some(same) = daemon.node.policies.same(&candidate, &Source::Agent) {
        return Ok((same.slot, name));
    }
    let slot = daemon.node.load(Source::Agent, candidate).map_err(|error| Refusal::Failed(format!("{error:#}")))?;
    Ok((slot, name))
}

async fn compile(daemon: &Daemon, document: Document, request: &CreateAgent) -> Result<Candidate, Refusal> {
    let (documents, variables) = (request.documents.clone(), request.variables.clone());
    let files = Files::new(&daemon.config.policies_dir);
    let compiled = tokio::task::spawn_blocking(move || {
        candidate(document, &Sent { documents: &documents, files }, &variables).map_err(|errors| errors.to_string())
    });
    match compiled.await {
        Ok(compiled) => compiled.map_err(|errors| Refusal::Invalid(format!("the policy is refused:\n{errors}"))),
        Err(error) => Err(Refusal::Failed(format!("compiling the policy panicked: {error}"))),
    }
}

/// The cgroup, if it may be bound: it lies outside the agents root, no agent has it, and it holds neither the whole
/// machine nor the daemon itself.
fn bindable(daemon: &Daemon, path: &str) -> Result<Cgroup, Refusal> {
    let hierarchy = &daemon.node.directory.hierarchy;
    let found = hierarchy.look_up(path);
    let cgroup = found.map_err(|error| Refusal::NotFound(format!("cannot find the cgroup {path}: {error}")))?;
    let within = |inner: &str, outer: &str| {
        let (inner, outer) = (inner.trim_matches('/'), outer.trim_matches('/'));
        outer.is_empty() || inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    let root = &daemon.config.agents_root;
    if within(&cgroup.path, root) || within(root, &cgroup.path) {
        return Err(Refusal::Conflict(format!(
            "cgroup {} is, holds or lies below the agents root: the kernel binds what is made there",
            cgroup.path
        )));
    }
    let own = own_cgroup(&daemon.config.roots.proc).unwrap_or_default();
    if within(&own, &cgroup.path) {
        return Err(Refusal::Conflict(format!(
            "cgroup {} holds the daemon itself, which would be bound too",
            cgroup.path
        )));
    }
    let table = daemon.node.directory.table();
    if let Some(agent) =
        table.iter().find(|agent| within(&cgroup.path, &agent.cgroup) || within(&agent.cgroup, &cgroup.path))
    {
        if !agent.cgroup.is_empty() {
            return Err(Refusal::Conflict(format!(
                "cgroup {} is already bound: agent {} has {}",
                cgroup.path, agent.identity.id, agent.cgroup
            )));
        }
    }
    Ok(cgroup)
}

fn own_cgroup(proc: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(proc.join("self/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Ends an agent; the answer comes when its last record is written.
fn end(daemon: &mut Daemon, id: &str, answer: Option<Answer<api::Agent>>) {
    let refuse = |answer: Option<Answer<api::Agent>>, refusal| {
        if let Some(answer) = answer {
            drop(answer.send(Err(refusal)));
        }
    };
    let found = daemon.node.directory.table().by_id(id).cloned();
    let Some(agent) = found else { return refuse(answer, no_agent(id)) };
    if !can_end(&agent) {
        let message =
            format!("agent {id} was not made by request: it ends when its cgroup {} is removed", agent.cgroup);
        return refuse(answer, Refusal::Conflict(message));
    }
    if daemon.ending.contains_key(&agent.number) || daemon.node.is_leaving(agent.number) {
        return refuse(answer, Refusal::Conflict(format!("agent {id} is ending already")));
    }
    daemon.ending.insert(agent.number, (answer, false));
    if agent.origin == Origin::Bound {
        daemon.node.leave(agent.number, "unbound");
        return;
    }
    let (directory, background) = (daemon.node.directory.clone(), daemon.background.clone());
    tokio::spawn(async move {
        let cgroup = agent.cgroup.clone();
        let emptied = tokio::task::spawn_blocking(move || Node::empty(&directory, &cgroup, KILL_LIMIT)).await;
        let killed = match emptied {
            Ok(emptied) => emptied.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let _ = background.send(Background::Emptied(agent.number, killed)).await;
    });
}

fn no_agent(id: &str) -> Refusal {
    Refusal::NotFound(format!("there is no agent {id}; see agent-monitor agents list"))
}

fn mode(word: &str) -> Result<Mode, Refusal> {
    Mode::from_name(word).ok_or_else(|| Refusal::Invalid(format!("unknown mode {word}: use enforce or audit")))
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
    fn an_unknown_mode_is_told_with_those_that_exist() {
        assert_eq!(mode("audit"), Ok(Mode::Audit));
        assert!(matches!(mode("learn"), Err(Refusal::Invalid(message)) if message.contains("enforce or audit")));
    }
}
