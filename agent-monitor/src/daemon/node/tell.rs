//! What the node tells: records of its agents, its policies and the monitor itself.

use super::Node;
use crate::bind::{Agent, Limit, Origin};
use crate::daemon::VERSION;
use crate::daemon::loss::RECORDS_NOT_WRITTEN;
use crate::record::{AgentChange, Body, Counts, Loss, MonitorChange, PolicyChange, PolicyRef, Record, clock};
use crate::sink::Entry;
use crate::support::Level;

/// Most records that wait for the stream while it takes none.
const MOST: usize = 8192;

impl Node {
    /// Makes a record about an agent.
    pub fn tell_agent(&mut self, action: &str, agent: &Agent, counts: Option<Counts>) {
        if agent.origin == Origin::Test {
            return;
        }
        let change = AgentChange {
            action: action.to_owned(),
            mode: agent.mode.name().to_owned(),
            policy: self.directory.policy(agent.slot),
            agent: agent.identity.clone(),
            expires: agent.limit.as_ref().map(Limit::shown),
            counts,
        };
        let record = self.record(Body::Agent(Box::new(change)));
        self.push(Entry { record, tally: Some(agent.tally.clone()) });
    }

    /// Makes a record about a policy.
    pub fn tell_policy(&mut self, action: &str, policy: PolicyRef, source: Option<String>, messages: Vec<String>) {
        if let Some((_, count)) = self.policy_changes.iter_mut().find(|(known, _)| *known == action) {
            *count += 1;
        }
        self.tell(Body::Policy(PolicyChange { action: action.to_owned(), policy, source, messages }));
    }

    /// Makes a record about a document that is refused. The policy that is in force by its name stays so.
    pub fn tell_refused(&mut self, name: &str, source: &str, messages: &[String]) {
        let policy = self.policies.named(name).map(|one| self.directory.policy(one.slot));
        let policy = policy.unwrap_or_else(|| PolicyRef { name: name.to_owned(), ..PolicyRef::default() });
        self.tell_policy("refused", policy, Some(source.to_owned()), messages.to_vec());
    }

    /// Makes a record about the monitor itself.
    pub fn tell_monitor(&mut self, action: &str, level: Level, messages: Vec<String>) {
        let (version, enforcement) = (VERSION.to_owned(), level.name().to_owned());
        self.tell(Body::Monitor(MonitorChange { action: action.to_owned(), version, enforcement, messages }));
    }

    /// Makes a record.
    pub fn tell(&mut self, body: Body) {
        let record = self.record(body);
        self.push(record.into());
    }

    fn record(&self, body: Body) -> Record {
        Record { time: clock::now(), seq: None, node_name: self.node_name.clone(), body }
    }

    fn push(&mut self, entry: Entry) {
        if self.records.len() < MOST {
            self.records.push(entry);
        } else {
            self.left_out += 1;
            self.records_left_out += 1;
        }
    }

    /// Whether so many records wait for the stream that none should be made that can be made later.
    pub fn is_behind(&self) -> bool {
        self.records.len() >= MOST / 2
    }

    /// Hands the records made so far to the stream, as soon as it has room. Never waits.
    pub fn write(&mut self) {
        if !self.records.is_empty() {
            let outbox = self.outbox.clone();
            outbox.write(|| self.take_records());
        }
    }

    /// The same, before something that is done behind them; `false` where there is no room for both.
    pub fn write_before(&mut self) -> bool {
        let outbox = self.outbox.clone();
        self.records.is_empty() || outbox.write_before(|| self.take_records())
    }

    /// Waits until all that was told so far is written.
    pub async fn flush(&mut self) {
        let records = self.take_records();
        self.outbox.flush(records).await;
    }

    fn take_records(&mut self) -> Vec<Entry> {
        let mut records = std::mem::take(&mut self.records);
        let count = std::mem::take(&mut self.left_out);
        if count > 0 {
            let (stage, reason) = ("daemon".to_owned(), RECORDS_NOT_WRITTEN.to_owned());
            records.push(self.record(Body::Loss(Loss { stage, reason, count, ..Loss::default() })).into());
        }
        records
    }
}
