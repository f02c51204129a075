//! Answers to the requests of the control socket.

mod create;

use std::time::Duration;

pub use create::{Compiled, Found, compile, create, create_now, find, finish_creating, is_stale, renew_now};

use super::change::Change;
use super::serve::{Background, Daemon};
use super::view;
use crate::bind::{Agent, Origin};
use crate::control::api::{self, Refusal};
use crate::control::{Answer, Request};
use create::start_creating;

/// Longest wait for killed processes to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Answers a request. Who asked may be gone: that is no error.
pub fn answer(daemon: &mut Daemon, request: Request) {
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
        Request::Create(request, answer) => start_creating(daemon, *request, answer),
        Request::Delete(id, answer) => end(daemon, &id, Some(answer)),
        Request::Policies(answer) => drop(answer.send(view::policies(daemon))),
        Request::Policy(name, answer) => {
            let found = view::policy_named(daemon, &name);
            drop(answer.send(found.ok_or_else(|| Refusal::NotFound(format!("there is no policy {name}")))));
        }
        Request::ApplyPolicy(name, body, answer) => daemon.change_policy(Change::Apply(name, *body), answer),
        Request::DeletePolicy(name, answer) => daemon.change_policy(Change::Delete(name), answer),
        Request::Follow(filter, peer, answer) => {
            daemon.followers.start(&daemon.node.stream, &daemon.config.node_name, filter, peer, answer);
        }
        Request::Metrics(answer) => {
            let snapshot = view::snapshot(daemon);
            drop(answer.send(daemon.metrics.text(snapshot)));
        }
    }
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
            format!("agent {id} was not made by request: it ends when its cgroup {} is removed", agent.shown());
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
        let number = agent.number;
        let emptied = tokio::task::spawn_blocking(move || match agent.cgroup {
            Some(path) => directory.hierarchy.empty(&path, KILL_LIMIT),
            None => Ok(false),
        })
        .await;
        let killed = match emptied {
            Ok(emptied) => emptied.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let _ = background.send(Background::Emptied(number, killed)).await;
    });
}

/// Whether an agent can be ended by request.
fn can_end(agent: &Agent) -> bool {
    matches!(agent.origin, Origin::Made | Origin::Bound)
}

fn no_agent(id: &str) -> Refusal {
    Refusal::NotFound(format!("there is no agent {id}; see agent-monitor agents list"))
}
