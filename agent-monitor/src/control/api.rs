//! What can be asked over the control socket, and the answers: JSON bodies for people and programs of the same node, of
//! the same version as the daemon. Not a frozen format; `docs/openapi.json` is made of these types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::{IntoParams, ToSchema};

use super::peer::Peer;
use crate::record::Counts;
use crate::seccomp::Filter;

/// One request, with the way back for its answer.
#[derive(Debug)]
pub enum Request {
    /// What is enforced now.
    Status(oneshot::Sender<Status>),
    /// All agents.
    Agents(oneshot::Sender<Vec<Agent>>),
    /// One agent.
    Agent(String, Answer<Agent>),
    /// Make an agent, or bind a cgroup that is there.
    Create(Box<CreateAgent>, Answer<Bound>),
    /// End an agent: one that was made is killed and its cgroup removed, one that was bound is unbound.
    Delete(String, Answer<Agent>),
    /// All policies.
    Policies(oneshot::Sender<Vec<Policy>>),
    /// One policy.
    Policy(String, Answer<Policy>),
    /// Put a document in force as the policy of this name.
    ApplyPolicy(String, Box<ApplyPolicy>, Answer<ChangedPolicy>),
    /// End a policy that was applied; who has it is bound to `empty`.
    DeletePolicy(String, Answer<ChangedPolicy>),
    /// Records from now on, for who asks.
    Follow(Follow, Peer, Answer<mpsc::Receiver<String>>),
    /// The text of the metrics.
    Metrics(oneshot::Sender<String>),
}

/// The way back for an answer that can be a refusal.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense as it is.
    #[error("{0}")]
    Invalid(String),
    /// What it names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// What exists stands against it.
    #[error("{0}")]
    Conflict(String),
    /// There are too many of these.
    #[error("{0}")]
    TooMany(String),
    /// The daemon could not do it.
    #[error("{0}")]
    Failed(String),
}

/// Body of a request for an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateAgent {
    /// Name for its records.
    pub name: Option<String>,
    /// Name of a policy that is loaded.
    pub policy: Option<String>,
    /// A policy of its own, instead: the document, and those that it includes.
    pub documents: Vec<Document>,
    /// Values for the policy's variables.
    pub variables: BTreeMap<String, String>,
    /// Labels for its records.
    pub labels: BTreeMap<String, String>,
    /// `enforce` or `audit`; the policy's own where it is not given.
    pub mode: Option<String>,
    /// A cgroup that is there and shall be bound; without it a new one is made.
    pub cgroup: Option<String>,
    /// How many seconds `cgroup` is bound for; then it is bound to `empty`. For a cgroup that was bound for a time already
    /// this begins anew, with the policy, the mode and, where they are given, the name and the labels of this request.
    /// Left out where the binding has no end, like `protect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_622_400)]
    pub ttl_seconds: Option<u64>,
    /// Files beside the monitor's own that it may not touch, whatever its policy says: absolute paths, as the kernel
    /// resolves them. Left out where there are none: a daemon that does not know the field refuses it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protect: Vec<String>,
}

/// The answer to a request for an agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bound {
    /// The agent was there, bound for a time, and that begins again.
    pub renewed: bool,
    /// The agent.
    pub agent: Agent,
}

/// A policy document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The name by which others include it; empty for the first one.
    pub name: String,
    /// Where it comes from, for messages.
    pub path: String,
    /// The text.
    pub text: String,
}

/// Body of a request to apply a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// Where it comes from, for messages.
    pub path: String,
    /// The document. What it includes is looked for by name among the applied policies, then in the policy directory.
    pub text: String,
}

/// What became of a policy that was applied or deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangedPolicy {
    /// `loaded`, `replaced`, `unchanged` (what it means was in force already), `removed`.
    pub change: String,
    /// Agents that had a policy that was deleted, and are bound to `empty` now.
    pub agents_emptied: u64,
    /// The policy as it is now.
    pub policy: Policy,
}

/// Which records to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Follow {
    /// Denied operations only.
    pub denied: bool,
    /// This agent only.
    pub agent: Option<String>,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// Id of its cgroup.
    pub cgroup_id: u64,
    /// Name of its policy.
    pub policy: String,
    /// Generation of its policy.
    pub generation: u64,
    /// What its verdicts do.
    pub mode: String,
    /// How it became an agent: `made`, `bound`, `below-root`, `directory`.
    pub origin: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When its binding ends or has ended, RFC 3339, UTC; null where it has no end.
    #[serde(default)]
    pub expires: Option<String>,
    /// The end has come, and the agent is bound to `empty`.
    #[serde(default)]
    pub expired: bool,
    /// What the kernel counted for it.
    pub counts: Counts,
    /// In the answer to a request for an agent: the filter that who starts its processes installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Ending it killed processes that were left.
    #[serde(default)]
    pub killed: bool,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: u64,
    /// `enforce` or `audit`.
    pub mode: String,
    /// `loaded`, `refused`, `removed`.
    pub state: String,
    /// Where it comes from.
    pub source: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Agents that it is bound to.
    pub agents: u64,
    /// Bytes of its image.
    pub image_bytes: u64,
    /// Warnings, or the errors of a refused document.
    pub messages: Vec<String>,
    /// The document; given where one policy is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// What is enforced on this node now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the node.
    pub node_name: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// `full`, `partial`, `none`.
    pub enforcement: String,
    /// Whether the daemon is ready.
    pub ready: bool,
    /// Why it is not ready, or what is degraded.
    pub reasons: Vec<String>,
    /// The agents root.
    pub agents_root: String,
    /// Each hook.
    pub hooks: Vec<Hook>,
    /// Each policy.
    pub policies: Vec<Policy>,
    /// How many agents there are.
    pub agents: u64,
    /// How many of them are bound for a time that is not over.
    #[serde(default)]
    pub agents_limited: u64,
    /// How many of them were bound for a time that is over, and may do nothing.
    #[serde(default)]
    pub agents_expired: u64,
    /// What is counted by class and verdict.
    pub operations: Vec<Operations>,
    /// What was lost, by stage and reason.
    pub losses: Vec<LossCount>,
    /// Each map.
    pub maps: Vec<Map>,
    /// Number of the last record.
    pub last_seq: u64,
}

/// A hook and whether it is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// `attached`; `on-request` or `loaded` where its program is there and not attached; `missing`, or `not-needed` where a
    /// kernel may lack the hook; `refused`.
    pub state: String,
    /// Why it is not attached.
    pub detail: String,
    /// How often the kernel skipped its program when it was looked at last; null where none is loaded.
    pub recursion_misses: Option<u64>,
}

/// Operations of one class with one verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operations {
    /// The class.
    pub class: String,
    /// The verdict.
    pub verdict: String,
    /// How many.
    pub count: u64,
}

/// How much was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LossCount {
    /// Where.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// How full a map is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Most entries.
    pub capacity: u64,
}

/// Body of every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_named() {
        let error = serde_json::from_str::<CreateAgent>(r#"{"polcy":"a"}"#).expect_err("must be refused");
        assert!(error.to_string().contains("polcy"), "{error}");
    }
}
