//! The metrics, as text for Prometheus. What the kernel and the daemon count is put in as a [`Snapshot`] at each scrape;
//! only what happens at one moment (how long a swap of a policy took) is kept here. No label takes a value that an agent
//! chooses.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Values of one metric: for each, the values of its labels and the number.
pub type Values = Vec<(Vec<String>, u64)>;

/// Everything that is counted elsewhere, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By class and verdict.
    pub operations: Values,
    /// By class and reason.
    pub denied: Values,
    /// By policy and mode.
    pub agents: Values,
    /// One number.
    pub bindings_expired: Values,
    /// By state.
    pub policies: Values,
    /// By action.
    pub policy_changes: Values,
    /// By policy.
    pub policy_generation: Values,
    /// By hook; 1 or 0.
    pub hook_attached: Values,
    /// By hook.
    pub program_recursion_misses: Values,
    /// By state; 1 or 0.
    pub enforcement_state: Values,
    /// By sink.
    pub records_written: Values,
    /// One number.
    pub events_folded: Values,
    /// By stage and reason.
    pub events_lost: Values,
    /// By reason.
    pub audit_log_findings: Values,
    /// By what is done; 1 or 0.
    pub audit_log_failing: Values,
    /// By map.
    pub map_entries: Values,
    /// By map.
    pub map_capacity: Values,
    /// By fault.
    pub faults: Values,
    /// By test; 1 or 0.
    pub selftest_passed: Values,
    /// By reason.
    pub events_refused: Values,
    /// One number.
    pub events_unnamed: Values,
    /// By reason.
    pub enrichment_failures: Values,
    /// By reason.
    pub requests_refused: Values,
}

/// A row of the table of metrics.
struct Row {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    counter: bool,
    values: fn(&Snapshot) -> &Values,
}

impl Row {
    fn encode(&self, number: u64, metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        if self.counter {
            return ConstCounter::new(number).encode(metric);
        }
        ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX)).encode(metric)
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    values: fn(&Snapshot) -> &Values,
) -> Row {
    Row { name, help, labels, counter: true, values }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    values: fn(&Snapshot) -> &Values,
) -> Row {
    Row { name, help, labels, counter: false, values }
}

/// All metrics that come from a snapshot. Counters get the suffix `_total`.
const ROWS: &[Row] = &[
    counter("agent_monitor_operations", &["class", "verdict"], "Operations of agents that were judged", |s| {
        &s.operations
    }),
    counter("agent_monitor_denied", &["class", "reason"], "Operations that were denied", |s| &s.denied),
    gauge("agent_monitor_agents", &["policy", "mode"], "Agents that are bound", |s| &s.agents),
    counter("agent_monitor_bindings_expired", &[], "Bindings that ended because their time was over", |s| {
        &s.bindings_expired
    }),
    gauge("agent_monitor_policies", &["state"], "Policies", |s| &s.policies),
    counter("agent_monitor_policy_changes", &["action"], "Records about policies", |s| &s.policy_changes),
    gauge("agent_monitor_policy_generation", &["policy"], "Generation of the policy that is in force", |s| {
        &s.policy_generation
    }),
    gauge("agent_monitor_hook_attached", &["hook"], "Whether the program of the hook is attached", |s| {
        &s.hook_attached
    }),
    counter(
        "agent_monitor_program_recursion_misses",
        &["hook"],
        "How often the kernel skipped the program of the hook",
        |s| &s.program_recursion_misses,
    ),
    gauge("agent_monitor_enforcement_state", &["state"], "How much is enforced", |s| &s.enforcement_state),
    counter("agent_monitor_records_written", &["sink"], "Records written", |s| &s.records_written),
    counter("agent_monitor_events_folded", &[], "Events that became part of another record", |s| &s.events_folded),
    counter("agent_monitor_events_lost", &["stage", "reason"], "Events and records that were lost", |s| &s.events_lost),
    counter(
        "agent_monitor_audit_log_findings",
        &["reason"],
        "What was found in the audit log, or was done to it",
        |s| &s.audit_log_findings,
    ),
    gauge("agent_monitor_audit_log_failing", &["action"], "Whether this fails for the audit log", |s| {
        &s.audit_log_failing
    }),
    gauge("agent_monitor_map_entries", &["map"], "Entries of the map", |s| &s.map_entries),
    gauge("agent_monitor_map_capacity", &["map"], "Most entries of the map", |s| &s.map_capacity),
    counter("agent_monitor_faults", &["fault"], "Operations that could not be decided", |s| &s.faults),
    gauge("agent_monitor_selftest_passed", &["test"], "Whether the test at start was passed", |s| &s.selftest_passed),
    counter("agent_monitor_events_refused", &["reason"], "Entries of the rings that are no events", |s| {
        &s.events_refused
    }),
    counter("agent_monitor_events_unnamed", &[], "Operations told by the number of their agent only", |s| {
        &s.events_unnamed
    }),
    counter("agent_monitor_enrichment_failures", &["reason"], "Processes that could not be described", |s| {
        &s.enrichment_failures
    }),
    counter("agent_monitor_requests_refused", &["reason"], "Requests of the control socket that were refused", |s| {
        &s.requests_refused
    }),
];

/// The metrics of a daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    snapshot: Arc<Current>,
    /// How long swapping a policy takes, from the new document to the pointer in the kernel.
    pub policy_swap_seconds: Histogram,
}

#[derive(Default)]
struct Current(Mutex<Snapshot>);

impl Metrics {
    /// Metrics of this version on a kernel of this release.
    pub fn new(version: &str, kernel: &str) -> Self {
        let mut registry = Registry::default();
        let snapshot = Arc::new(Current::default());
        let policy_swap_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        registry.register(
            "agent_monitor_policy_swap_seconds",
            "Time from a changed document to the new policy in the kernel",
            policy_swap_seconds.clone(),
        );
        let build = vec![("version".to_owned(), version.to_owned()), ("kernel".to_owned(), kernel.to_owned())];
        registry.register("agent_monitor_build", "Version of the monitor, release of the kernel", Info::new(build));
        registry.register_collector(Box::new(snapshot.clone()));
        Self { registry, snapshot, policy_swap_seconds }
    }

    /// The text for a scrape, with these values.
    pub fn text(&self, snapshot: Snapshot) -> String {
        *self.snapshot.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Collector for Current {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in ROWS {
            let kind = if row.counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(row.name, row.help, None, kind)?;
            if row.labels.is_empty() {
                // One number; with a set of no labels it would be written as `{}`.
                let number = (row.values)(&snapshot).first().map_or(0, |(_, number)| *number);
                row.encode(number, family)?;
                continue;
            }
            for (values, number) in (row.values)(&snapshot) {
                let labels: Vec<(&str, &str)> =
                    row.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                row.encode(*number, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_name_is_there() {
        let label = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let one = |words: &[&str]| vec![(label(words), 1)];
        let snapshot = Snapshot {
            operations: one(&["file", "deny"]),
            denied: one(&["file", "no_rule"]),
            agents: one(&["p", "enforce"]),
            bindings_expired: one(&[]),
            policies: one(&["loaded"]),
            policy_changes: one(&["refused"]),
            policy_generation: one(&["p"]),
            hook_attached: one(&["file_open"]),
            program_recursion_misses: one(&["file_open"]),
            enforcement_state: one(&["full"]),
            records_written: one(&["audit"]),
            events_folded: one(&[]),
            events_unnamed: one(&[]),
            events_lost: one(&["kernel", "denials_ring_full"]),
            audit_log_findings: one(&["truncated"]),
            audit_log_failing: one(&["writing"]),
            map_entries: one(&["BINDINGS"]),
            map_capacity: one(&["BINDINGS"]),
            faults: one(&["no-image"]),
            selftest_passed: one(&["file"]),
            ..Snapshot::default()
        };
        let metrics = Metrics::new("0.1.0", "6.12.0");
        metrics.policy_swap_seconds.observe(0.1);
        let text = metrics.text(snapshot);
        for line in [
            "agent_monitor_operations_total{class=\"file\",verdict=\"deny\"} 1",
            "agent_monitor_denied_total{class=\"file\",reason=\"no_rule\"} 1",
            "agent_monitor_agents{policy=\"p\",mode=\"enforce\"} 1",
            "agent_monitor_bindings_expired_total 1",
            "agent_monitor_policies{state=\"loaded\"} 1",
            "agent_monitor_policy_changes_total{action=\"refused\"} 1",
            "agent_monitor_policy_generation{policy=\"p\"} 1",
            "agent_monitor_policy_swap_seconds_count 1",
            "agent_monitor_hook_attached{hook=\"file_open\"} 1",
            "agent_monitor_program_recursion_misses_total{hook=\"file_open\"} 1",
            "agent_monitor_enforcement_state{state=\"full\"} 1",
            "agent_monitor_records_written_total{sink=\"audit\"} 1",
            "agent_monitor_events_lost_total{stage=\"kernel\",reason=\"denials_ring_full\"} 1",
            "agent_monitor_audit_log_findings_total{reason=\"truncated\"} 1",
            "agent_monitor_audit_log_failing{action=\"writing\"} 1",
            "agent_monitor_events_folded_total 1",
            "agent_monitor_events_unnamed_total 1",
            "agent_monitor_map_entries{map=\"BINDINGS\"} 1",
            "agent_monitor_map_capacity{map=\"BINDINGS\"} 1",
            "agent_monitor_faults_total{fault=\"no-image\"} 1",
            "agent_monitor_selftest_passed{test=\"file\"} 1",
            "agent_monitor_build_info{version=\"0.1.0\",kernel=\"6.12.0\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }
}
