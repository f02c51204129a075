//! What the daemon shows: answers of the control socket and values of the metrics, from what the node knows and counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use agent_monitor_common::class::{Class, Fault, Mode, Reason, Verdict};

use super::loss::{
    DENIALS_NOT_WRITTEN, DENIALS_RING_FULL, RECORDS_NOT_WRITTEN, TELEMETRY_NOT_WRITTEN, TELEMETRY_RING_FULL,
};
use super::policies::{Instance, Source};
use super::serve::Daemon;
use crate::bind::{Agent, Limit, shown};
use crate::bpf::HookStatus;
use crate::control::api;
use crate::sink::metrics::{Snapshot, Values};
use crate::support::{Level, kernel_release};

/// The state of enforcement where something passes, or passed, that nobody judged.
const DEGRADED: &str = "degraded";

/// An agent as the control socket shows it.
pub fn agent(daemon: &Daemon, agent: &Agent) -> api::Agent {
    let policy = daemon.node.directory.policy(agent.slot);
    api::Agent {
        id: agent.identity.id.clone(),
        name: agent.identity.name.clone(),
        cgroup: agent.cgroup.as_deref().map(|path| path.to_str().map_or_else(|| shown(path), str::to_owned)),
        cgroup_id: agent.identity.cgroup_id,
        policy: policy.name,
        generation: policy.generation,
        mode: agent.mode.name().to_owned(),
        origin: agent.origin.name().to_owned(),
        labels: agent.identity.labels.clone(),
        expires: agent.limit.as_ref().map(Limit::shown),
        expired: agent.limit.as_ref().is_some_and(|limit| limit.expired),
        counts: daemon.node.counts(agent),
        filter: None,
        killed: false,
    }
}

/// All policies.
pub fn policies(daemon: &Daemon) -> Vec<api::Policy> {
    let agents = agents(daemon);
    let loaded = daemon.node.policies.iter().map(|instance| policy(daemon, instance, &agents));
    loaded.chain(daemon.catalogue.others(&daemon.node.policies)).collect()
}

fn policy(daemon: &Daemon, instance: &Instance, agents: &BTreeMap<(u32, Mode), u64>) -> api::Policy {
    let state = if instance.source == Source::Removed { "removed" } else { "loaded" };
    let image = daemon.node.directory.image(instance.slot);
    api::Policy {
        name: instance.name().to_owned(),
        generation: instance.generation,
        mode: instance.mode().name().to_owned(),
        state: state.to_owned(),
        source: Some(instance.candidate.path.clone()),
        labels: instance.candidate.labels.clone(),
        agents: agents.iter().filter(|((slot, _), _)| *slot == instance.slot).map(|(_, count)| count).sum(),
        image_bytes: image.map_or(0, |image| image.bytes.len() as u64),
        messages: instance.candidate.messages.clone(),
        document: None,
    }
}

/// One policy with its document.
pub fn policy_named(daemon: &Daemon, name: &str) -> Option<api::Policy> {
    if let Some(found) = daemon.node.policies.named(name) {
        let shown = policy(daemon, found, &agents(daemon));
        return Some(api::Policy { document: Some(found.candidate.text.clone()), ..shown });
    }
    policies(daemon).into_iter().find(|policy| policy.name == name)
}

/// How many agents there are by slot and mode, without those that are only a place where agents are made.
fn agents(daemon: &Daemon) -> BTreeMap<(u32, Mode), u64> {
    let mut counts = BTreeMap::new();
    let table = daemon.node.directory.table();
    for agent in table.iter().filter(|agent| agent.origin.is_agent()) {
        *counts.entry((agent.slot, agent.mode)).or_default() += 1;
    }
    counts
}

/// How many agents there are.
pub fn agent_count(daemon: &Daemon) -> u64 {
    agents(daemon).values().sum()
}

/// How many agents are bound for a time that is over (true) or not.
fn limited(daemon: &Daemon, expired: bool) -> u64 {
    let table = daemon.node.directory.table();
    let limits = table.iter().filter_map(|agent| agent.limit.as_ref());
    limits.filter(|limit| limit.expired == expired).map(|_| 1).sum()
}

/// What is enforced now.
pub fn status(daemon: &Daemon) -> api::Status {
    let readiness = daemon.readiness.borrow().clone();
    let counters = daemon.node.programs.counters().ok();
    let pairs = Class::ALL.iter().flat_map(|class| Verdict::ALL.iter().map(move |verdict| (*class, *verdict)));
    let operations = pairs.map(|(class, verdict)| api::Operations {
        class: class.name().to_owned(),
        verdict: verdict.name().to_owned(),
        count: counters.as_ref().map_or(0, |counters| counters.operations(class, verdict)),
    });
    let losses = losses(daemon).into_iter().map(|(labels, count)| {
        let [stage, reason] = <[String; 2]>::try_from(labels).unwrap_or_default();
        api::LossCount { stage, reason, count }
    });
    api::Status {
        version: super::VERSION.to_owned(),
        kernel: kernel_release(),
        node_name: daemon.config.node_name.clone(),
        pid: std::process::id(),
        enforcement: daemon.level.name().to_owned(),
        ready: readiness.ready,
        reasons: readiness.reasons,
        agents_root: daemon.config.agents_root.clone(),
        hooks: hooks(daemon),
        policies: policies(daemon),
        agents: agent_count(daemon),
        agents_limited: limited(daemon, false),
        agents_expired: limited(daemon, true),
        operations: operations.collect(),
        losses: losses.collect(),
        maps: maps(daemon),
        last_seq: daemon.node.stream.totals().last_seq.load(Ordering::Relaxed),
    }
}

/// Each hook and what became of it.
pub fn hooks(daemon: &Daemon) -> Vec<api::Hook> {
    let states = daemon.node.programs.hooks().into_iter();
    let shown = states.map(|state| {
        let (word, detail) = match state.status {
            HookStatus::Attached => ("attached", String::new()),
            HookStatus::Loaded if state.on_request() => ("on-request", String::new()),
            HookStatus::Loaded => ("loaded", String::new()),
            HookStatus::Missing(why) if state.hook.optional() => ("not-needed", why),
            HookStatus::Missing(why) => ("missing", why),
            HookStatus::Refused(why) => ("refused", why),
        };
        let recursion_misses = daemon.node.misses.count(state.hook.name);
        api::Hook { name: state.hook.name.to_owned(), state: word.to_owned(), detail, recursion_misses }
    });
    shown.collect()
}

fn maps(daemon: &Daemon) -> Vec<api::Map> {
    let states = daemon.node.programs.maps().unwrap_or_default().into_iter();
    states.map(|map| api::Map { name: map.name.to_owned(), entries: map.entries, capacity: map.capacity }).collect()
}

fn losses(daemon: &Daemon) -> Values {
    let counters = daemon.node.programs.counters().ok();
    let kernel = |read: fn(&crate::bpf::Counters) -> u64| counters.as_ref().map_or(0, read);
    let (totals, told) = (daemon.node.stream.totals(), &daemon.node.losses);
    let count = |stage: &str, reason: &str, count: u64| (vec![stage.to_owned(), reason.to_owned()], count);
    vec![
        count("kernel", DENIALS_RING_FULL, kernel(crate::bpf::Counters::denials_lost)),
        count("kernel", TELEMETRY_RING_FULL, kernel(crate::bpf::Counters::telemetry_lost)),
        count("daemon", DENIALS_NOT_WRITTEN, told.denials_not_written),
        count("daemon", TELEMETRY_NOT_WRITTEN, told.telemetry_not_written),
        count("daemon", RECORDS_NOT_WRITTEN, daemon.node.records_left_out),
        count("decode", "not_an_event", load(&daemon.refused.events) + load(&daemon.refused.operands)),
        count("audit", "write_failed", load(&totals.audit_lost)),
        count("follower", "too_slow", load(&totals.follower_lost)),
    ]
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// 1 for the state that holds.
fn enforcement_state(level: Level, gaps: bool) -> Values {
    let holds = if gaps { DEGRADED } else { level.name() };
    let states = [Level::Full.name(), Level::Partial.name(), DEGRADED, Level::None.name()].into_iter();
    states.map(|state| (vec![state.to_owned()], u64::from(state == holds))).collect()
}

/// The values of the metrics.
pub fn snapshot(daemon: &Daemon) -> Snapshot {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut snapshot = Snapshot::default();
    if let Ok(counters) = daemon.node.programs.counters() {
        for class in Class::ALL {
            for verdict in Verdict::ALL {
                let count = counters.operations(*class, *verdict);
                snapshot.operations.push((words(&[class.name(), verdict.name()]), count));
            }
            for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::AllowRule) {
                snapshot.denied.push((words(&[class.name(), reason.name()]), counters.denials(*class, *reason)));
            }
        }
        snapshot.faults = Fault::ALL.iter().map(|fault| (words(&[fault.name()]), counters.faults(*fault))).collect();
    }
    let mut by_policy: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for ((slot, mode), count) in agents(daemon) {
        *by_policy.entry((daemon.node.directory.policy(slot).name, mode.name())).or_default() += count;
    }
    snapshot.agents = by_policy.into_iter().map(|((policy, mode), count)| (words(&[&policy, mode]), count)).collect();
    let mut states: BTreeMap<String, u64> =
        ["loaded", "refused", "removed"].into_iter().map(|state| (state.to_owned(), 0)).collect();
    let mut generations: BTreeMap<String, u64> = BTreeMap::new();
    for policy in policies(daemon) {
        if policy.generation > 0 {
            let generation = generations.entry(policy.name).or_default();
            *generation = policy.generation.max(*generation);
        }
        *states.entry(policy.state).or_default() += 1;
    }
    snapshot.policies = states.into_iter().map(|(state, count)| (vec![state], count)).collect();
    snapshot.policy_changes =
        daemon.node.policy_changes.iter().map(|(action, count)| (words(&[action]), *count)).collect();
    snapshot.policy_generation = generations.into_iter().map(|(name, generation)| (vec![name], generation)).collect();
    let hooks = hooks(daemon).into_iter().filter(|hook| !matches!(hook.state.as_str(), "not-needed" | "on-request"));
    snapshot.hook_attached = hooks.map(|hook| (vec![hook.name], u64::from(hook.state == "attached"))).collect();
    let misses = daemon.node.misses.counts();
    snapshot.program_recursion_misses = misses.map(|(hook, count)| (words(&[hook]), count)).collect();
    snapshot.enforcement_state = enforcement_state(daemon.level, !daemon.gaps().is_empty());
    let totals = daemon.node.stream.totals();
    snapshot.bindings_expired = vec![(Vec::new(), daemon.bindings_expired)];
    snapshot.records_written =
        vec![(words(&["audit"]), load(&totals.audit_written)), (words(&["follower"]), load(&totals.follower_written))];
    snapshot.events_folded = vec![(Vec::new(), load(&totals.folded))];
    snapshot.events_lost = losses(daemon);
    let found = totals.found.counts();
    snapshot.audit_log_findings = found.map(|(reason, count)| (words(&[reason.name()]), count)).collect();
    let failing = totals.failing().actions().into_iter();
    snapshot.audit_log_failing = failing.map(|(action, fails)| (words(&[action]), u64::from(fails))).collect();
    for map in maps(daemon) {
        snapshot.map_entries.push((vec![map.name.clone()], map.entries));
        snapshot.map_capacity.push((vec![map.name], map.capacity));
    }
    let tests = daemon.tests.iter();
    snapshot.selftest_passed =
        tests.map(|outcome| (words(&[outcome.test]), u64::from(outcome.failure.is_none()))).collect();
    snapshot.events_refused =
        vec![(words(&["event"]), load(&daemon.refused.events)), (words(&["operand"]), load(&daemon.refused.operands))];
    snapshot.events_unnamed = vec![(Vec::new(), load(&daemon.refused.unnamed))];
    let failures = daemon.enricher.failures().counts().into_iter();
    snapshot.enrichment_failures = failures.map(|(reason, count)| (words(&[reason]), count)).collect();
    let requests = &daemon.request_totals;
    snapshot.requests_refused = vec![
        (words(&["invalid"]), load(&requests.invalid)),
        (words(&["unauthorized"]), load(&requests.unauthorized)),
        (words(&["too_many_clients"]), load(&requests.too_many)),
        (words(&["stalled"]), load(&requests.stalled)),
    ];
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_of_enforcement_holds() {
        let holds = |level, gaps| -> Vec<String> {
            let states = enforcement_state(level, gaps).into_iter();
            states.filter(|(_, value)| *value == 1).flat_map(|(state, _)| state).collect()
        };
        assert_eq!(holds(Level::Full, false), ["full"]);
        assert_eq!(holds(Level::Partial, false), ["partial"]);
        assert_eq!(holds(Level::Full, true), ["degraded"]);
        assert_eq!(holds(Level::Partial, true), ["degraded"]);
    }
}
