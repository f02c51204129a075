//! The record: one line of the audit stream, as `docs/events.md` describes it. This is a public format: its names and
//! their order are frozen by the tests below.
//!
//! Nothing here knows where records come from or go to. Every text that an agent can choose has been through
//! [`escape`] before it gets into one of these structures.

pub mod chain;
pub mod clock;
mod counts;
pub mod escape;
pub mod object;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use chain::LineHash;
pub use counts::{ClassCounts, Classes, Counts};
pub use object::Object;
pub use tally::Tally;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it happened, RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// Number in the order of writing; `None` in what only one follower gets (its own losses).
    pub seq: Option<u64>,
    /// Name of the node.
    pub node_name: Arc<str>,
    /// What it tells of.
    pub body: Body,
}

/// What a record tells of; the variant is the record's `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// An operation was judged.
    Operation(Box<Operation>),
    /// An agent came, went or changed.
    Agent(Box<AgentChange>),
    /// A policy was loaded, refused, replaced or removed.
    Policy(PolicyChange),
    /// The monitor itself.
    Monitor(MonitorChange),
    /// Something is not in the stream that should be.
    Loss(Loss),
}

/// An operation of an agent and the verdict on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Class of the operation.
    pub class: String,
    /// The hook that judged it.
    pub operation: String,
    /// The accesses asked for; empty for classes that have only one.
    pub access: Vec<String>,
    /// `allow`, `audit` or `deny`.
    pub verdict: String,
    /// Why, with the fault or built-in after a colon.
    pub reason: String,
    /// What the caller got; null where the operation passed.
    pub errno: Option<String>,
    /// The signal that ended the process, where the call could not be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Mode of the agent.
    pub mode: String,
    /// How much is enforced on this node, where it is not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<String>,
    /// What the operation is on.
    pub object: Object,
    /// The policy that decided.
    pub policy: PolicyRef,
    /// The agent.
    pub agent: Arc<AgentRef>,
    /// The process.
    pub process: Process,
    /// The pod, in a cluster.
    pub pod: Option<Pod>,
    /// How many times it happened. The process, the thread and all else is that of the first time that was told.
    pub count: u64,
    /// When the first of them was, like `time`, which is that of the last; left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_time: Option<String>,
}

/// The policy, and the rule in it, that decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// Name of the policy.
    pub name: String,
    /// Generation of it that decided.
    pub generation: u64,
    /// Place of the rule in the document; null where no rule matched.
    pub rule: Option<String>,
    /// What the rule says about itself, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_reason: Option<String>,
}

/// Who an agent is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentRef {
    /// Unique on the node while the monitor runs.
    pub id: String,
    /// Chosen by who started it.
    pub name: String,
    /// Id of its cgroup.
    pub cgroup_id: u64,
    /// Path of its cgroup in the hierarchy; null where it was gone before we looked.
    pub cgroup: Option<String>,
    /// Chosen by who started it.
    pub labels: BTreeMap<String, String>,
}

/// The process that asked for an operation. What is gone by the time that we look is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Node, start and process id, in base64; the same for all records of one process.
    pub exec_id: String,
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Thread id in the initial namespace.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Path of its executable.
    pub binary: Option<String>,
    /// Its arguments without the first, separated by spaces.
    pub arguments: Option<String>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// When it was started.
    pub start_time: String,
    /// `exec_id` of its parent.
    pub parent_exec_id: String,
}

/// The pod that a process is in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Container in it.
    pub container: Container,
}

/// The container that a process is in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Id given by the runtime.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// Image as the pod names it.
    pub image: String,
}

/// An agent came, went or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentChange {
    /// `bound`, `unbound`, `started`, `exited`, `expired`.
    pub action: String,
    /// Mode of the agent.
    pub mode: String,
    /// The policy that it is bound to.
    pub policy: PolicyRef,
    /// The agent.
    pub agent: Arc<AgentRef>,
    /// When its binding ends or has ended, like `time`; left out where it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What the kernel counted for it, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

/// A policy was loaded, refused, replaced or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// `loaded`, `refused`, `replaced`, `removed`.
    pub action: String,
    /// The policy; the name of the file where the document is refused before its name is known.
    pub policy: PolicyRef,
    /// File or other origin.
    pub source: Option<String>,
    /// All errors of a refused document, warnings of a loaded one.
    pub messages: Vec<String>,
}

/// The monitor itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorChange {
    /// `started`, `ready`, `stopped`, `degraded`.
    pub action: String,
    /// Version of the monitor.
    pub version: String,
    /// How much is enforced: `full`, `partial`, `none`.
    pub enforcement: String,
    /// Why.
    pub messages: Vec<String>,
}

/// Something is not in the stream that should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Where: `kernel`, `daemon`, `decode`, `audit`, `follower`.
    pub stage: String,
    /// Why, e.g. `denials_ring_full`.
    pub reason: String,
    /// How many; 0 where that is not known, or told by another record.
    pub count: u64,
    /// Id of the agent whose operations these were, where it is one.
    pub agent: Option<String>,
    /// What is missing lies after the record with this number.
    pub after_seq: Option<u64>,
    /// What is missing lies before the record with this number.
    pub before_seq: Option<u64>,
    /// The audit log's file, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Hash of the last line that is missing, or of the one that should be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hash: Option<LineHash>,
    /// What was found, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The line as it is written: the head that all types share, then the body.
#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    time: &'a str,
    seq: Option<u64>,
    #[serde(rename = "type")]
    kind: &'a str,
    node_name: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// The head alone, to learn how to read the rest.
#[derive(Deserialize)]
struct Head {
    time: String,
    seq: Option<u64>,
    #[serde(rename = "type")]
    kind: String,
    node_name: String,
}

impl Record {
    /// The word of the record's `type`.
    pub fn kind(&self) -> &'static str {
        match self.body {
            Body::Operation(_) => "operation",
            Body::Agent(_) => "agent",
            Body::Policy(_) => "policy",
            Body::Monitor(_) => "monitor",
            Body::Loss(_) => "loss",
        }
    }

    /// Id of the agent that the record is about.
    pub fn agent_id(&self) -> Option<&str> {
        match &self.body {
            Body::Operation(operation) => Some(&operation.agent.id),
            Body::Agent(change) => Some(&change.agent.id),
            Body::Loss(loss) => loss.agent.as_deref(),
            Body::Policy(_) | Body::Monitor(_) => None,
        }
    }

    /// The record as one line of JSON, with the line feed.
    pub fn to_line(&self) -> String {
        let written = match &self.body {
            Body::Operation(body) => self.line(body.as_ref()),
            Body::Agent(body) => self.line(body.as_ref()),
            Body::Policy(body) => self.line(body),
            Body::Monitor(body) => self.line(body),
            Body::Loss(body) => self.line(body),
        };
        let mut line = written.expect("strings, numbers and maps with string keys always serialise");
        line.push('\n');
        line
    }

    fn line<T: Serialize>(&self, body: &T) -> serde_json::Result<String> {
        let line = Line { time: &self.time, seq: self.seq, kind: self.kind(), node_name: &self.node_name, body };
        serde_json::to_string(&line)
    }

    /// Reads a line that [`Self::to_line`] wrote. Fields that a later version adds are ignored.
    ///
    /// # Errors
    /// The line is not JSON, or not a record of a known type.
    pub fn parse(line: &str) -> serde_json::Result<Self> {
        let head: Head = serde_json::from_str(line)?;
        let body = match head.kind.as_str() {
            "operation" => Body::Operation(serde_json::from_str(line)?),
            "agent" => Body::Agent(serde_json::from_str(line)?),
            "policy" => Body::Policy(serde_json::from_str(line)?),
            "monitor" => Body::Monitor(serde_json::from_str(line)?),
            "loss" => Body::Loss(serde_json::from_str(line)?),
            other => {
                let message = format!("record has unknown type {other:?}");
                return Err(<serde_json::Error as serde::de::Error>::custom(message));
            }
        };
        Ok(Self { time: head.time, seq: head.seq, node_name: head.node_name.into(), body })
    }
}

#[cfg(test)]
mod tests;
