//! The report at the end of `run`: what was denied, grouped, and which rule would allow it.

use std::collections::BTreeMap;

use agent_monitor_common::class::{Class, access_words, all_accesses};

use crate::cmd::policy::indented;
use crate::record::{Body, Counts, Object, Operation, Record};

/// Most groups that are kept; a hostile agent can make as many as it likes.
const KEPT: usize = 1000;
/// Most groups that are shown.
const SHOWN: usize = 20;

/// What was seen of an agent.
#[derive(Debug, Default)]
pub struct Report {
    groups: BTreeMap<Key, Group>,
    /// Operations of groups that were not kept.
    more: u64,
    /// Records that did not reach us.
    missed: u64,
    /// Name and generation of the policy.
    policy: Option<(String, u64)>,
    partial: bool,
    /// Why not everything was judged.
    gaps: Vec<String>,
}

/// What makes operations the same for a reader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    class: String,
    access: Vec<String>,
    object: Object,
    verdict: String,
    reason: String,
    rule: Option<String>,
    /// The object is in `/proc`'s entry for a process other than the one that asked.
    of_another: bool,
}

#[derive(Debug, Default)]
struct Group {
    count: u64,
    rule_reason: Option<String>,
    /// Processes whose exec this was.
    pids: Vec<u32>,
}

impl Report {
    /// Takes note of a record.
    pub fn add(&mut self, record: &Record) {
        match &record.body {
            Body::Operation(operation) if operation.verdict != "allow" => self.add_operation(operation),
            Body::Monitor(change) if change.action == "degraded" => self.gaps.extend_from_slice(&change.messages),
            Body::Loss(loss) if loss.stage == "follower" || loss.stage == "decode" => self.missed += loss.count,
            _ => {}
        }
    }

    fn add_operation(&mut self, operation: &Operation) {
        self.policy.get_or_insert_with(|| (operation.policy.name.clone(), operation.policy.generation));
        self.partial |= operation.enforcement.is_some();
        let key = Key {
            class: operation.class.clone(),
            access: operation.access.clone(),
            object: operation.object.clone(),
            verdict: operation.verdict.clone(),
            reason: operation.reason.clone(),
            rule: operation.policy.rule.clone(),
            of_another: is_of_another(operation),
        };
        if self.groups.len() >= KEPT && !self.groups.contains_key(&key) {
            self.more += operation.count;
            return;
        }
        let group = self.groups.entry(key).or_default();
        group.count += operation.count;
        group.rule_reason.clone_from(&operation.policy.rule_reason);
        if group.pids.len() < SHOWN {
            group.pids.push(operation.process.pid);
        }
    }

    /// The report; empty where everything was judged, nothing denied and nothing lost.
    pub fn text(&self, counts: &Counts, pid: u32, killed: bool) -> String {
        let mut text: String = self.gaps.iter().map(|gap| format!("{gap}\n")).collect();
        if killed {
            text.push_str("processes of the agent were still there when the command ended, and were killed\n");
        }
        if counts.denied > 0 || counts.audited > 0 {
            text.push_str(&self.head(counts));
            let mut groups: Vec<_> = self.groups.iter().collect();
            groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
            for (key, group) in groups.iter().take(SHOWN) {
                text.push_str(&line(key, group, pid));
            }
            let hidden: u64 = groups.iter().skip(SHOWN).map(|(_, group)| group.count).sum::<u64>() + self.more;
            if hidden > 0 {
                text.push_str(&format!("  and {hidden} more of other kinds; --record FILE writes them all\n"));
            }
        }
        let lost = counts.lost.max(self.missed);
        if lost > 0 {
            text.push_str(&format!(
                "{lost} of these have no record, because records came faster than they could be read\n"
            ));
        }
        text
    }

    fn head(&self, counts: &Counts) -> String {
        let policy = self
            .policy
            .as_ref()
            .map_or_else(String::new, |(name, generation)| format!(" by the policy {name}, generation {generation}"));
        let partial = if self.partial { " (partial enforcement: the network alone)" } else { "" };
        let count = |count: u64, what: &str| {
            format!("{count} operation{}{what}{policy}{partial}:\n", if count == 1 { " was " } else { "s were " })
        };
        match (counts.denied, counts.audited) {
            (denied, 0) => count(denied, "denied"),
            (0, audited) => count(audited, "let pass that enforcing would deny"),
            (denied, audited) => count(denied, &format!("denied, and {audited} let pass that enforcing would deny,")),
        }
    }
}

fn line(key: &Key, group: &Group, pid: u32) -> String {
    let what = match key.access.as_slice() {
        [] => key.class.clone(),
        words => format!("{}:{}", key.class, words.join(",")),
    };
    let why = match (key.reason.as_str(), &key.rule) {
        ("no_rule", _) => "no rule allows it".to_owned(),
        ("deny_rule", Some(rule)) => format!("denied by {rule}"),
        (reason, _) if reason.starts_with("builtin:") => format!("{reason}: no policy can allow it"),
        (reason, _) if reason.starts_with("fault:") => format!("{reason}: it could not be decided"),
        (reason, _) => reason.to_owned(),
    };
    let because = group.rule_reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let mut text = format!("  {}x {what} {}: {why}{because}\n", group.count, describe(&key.object));
    if key.class == "exec" && group.pids.contains(&pid) && key.verdict == "deny" {
        text.push_str("     so the command itself, or a program that it needs to start, was not executed\n");
    }
    if key.of_another && key.reason == "no_rule" {
        text.push_str(
            "     it is another process's, which /proc/self does not match; a pattern such as /proc/*/stat does,\n",
        );
        text.push_str("     for every process of the machine\n");
    } else if let Some(rule) = suggestion(key, group) {
        text.push_str("     this rule would allow it:\n");
        text.push_str(&indented(&rule, "       "));
    }
    text
}

/// The object as one word or a few.
pub fn describe(object: &Object) -> String {
    if let Some(path) = &object.path {
        return object.new_path.as_ref().map_or_else(|| path.clone(), |new| format!("{path} to {new}"));
    }
    if let Some(unix) = &object.unix {
        return format!("unix:{unix}");
    }
    if let (Some(protocol), Some(address), Some(port)) = (&object.protocol, &object.address, object.port) {
        let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        return format!("{protocol}:{address}:{port}");
    }
    let target = object.target.map_or_else(String::new, |target| format!(" (process {target})"));
    object
        .name
        .clone()
        .or_else(|| object.family.clone())
        .map_or_else(|| "an unknown object".to_owned(), |name| name + &target)
}

fn is_of_another(operation: &Operation) -> bool {
    let is_file = matches!(operation.class.as_str(), "file" | "exec");
    let Object { path, new_path, .. } = &operation.object;
    is_file
        && [path, new_path]
            .into_iter()
            .flatten()
            .any(|path| agent_monitor_policy::is_of_another_process(path.as_bytes(), operation.process.pid))
}

fn suggestion(key: &Key, group: &Group) -> Option<String> {
    if key.reason != "no_rule" {
        return None;
    }
    let class = Class::from_name(&key.class)?;
    let words = access_words(class);
    let access = if words.is_empty() {
        all_accesses(class)
    } else {
        words.iter().filter(|(word, _)| key.access.iter().any(|asked| asked == word)).map(|(_, bit)| bit).sum()
    };
    let (object, new_object) = key.object.to_operand(class)?;
    // Those of one group are all in the process's own entry, or none is; see `of_another`.
    let pid = group.pids.first().copied().unwrap_or_default();
    agent_monitor_policy::suggest(class, access, &object, &new_object, pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AgentRef, MonitorChange, PolicyRef, Process};
    use std::sync::Arc;

    fn denied(path: &str, reason: &str, rule: Option<&str>, pid: u32) -> Record {
        let operation = Operation {
            class: "file".into(),
            operation: "file_open".into(),
            access: vec!["read".into()],
            verdict: "deny".into(),
            reason: reason.into(),
            errno: Some("EACCES".into()),
            signal: None,
            mode: "enforce".into(),
            enforcement: None,
            object: Object { path: Some(path.into()), ..Object::default() },
            policy: PolicyRef { name: "p".into(), generation: 2, rule: rule.map(str::to_owned), rule_reason: None },
            agent: Arc::new(AgentRef::default()),
            process: Process { pid, ..Process::default() },
            pod: None,
            count: 1,
            first_time: None,
        };
        Record { time: String::new(), seq: Some(1), node_name: "n".into(), body: Body::Operation(Box::new(operation)) }
    }

    fn counts(denied: u64) -> Counts {
        Counts { denied, written: denied, ..Counts::default() }
    }

    #[test]
    fn nothing_denied_says_nothing() {
        assert_eq!(Report::default().text(&Counts::default(), 1, false), "");
    }

    #[test]
    fn the_same_operation_is_one_line_with_its_count_and_the_rule_that_would_allow_it() {
        let mut report = Report::default();
        for pid in 1..=3 {
            report.add(&denied("/etc/shadow", "no_rule", None, pid));
        }
        report.add(&denied("/w/.env", "deny_rule", Some("files[2]"), 1));
        let text = report.text(&counts(4), 1, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"4 operations were denied by the policy p, generation 2:"));
        assert_eq!(lines.get(1), Some(&"  3x file:read /etc/shadow: no rule allows it"));
        assert!(text.contains("- allow: [read]") && text.contains("/etc/shadow"), "{text}");
        assert_eq!(lines.last(), Some(&"  1x file:read /w/.env: denied by files[2]"));
    }

    #[test]
    fn the_own_entry_of_proc_is_suggested_and_that_of_another_process_is_not() {
        let mut report = Report::default();
        report.add(&denied("/proc/7/environ", "no_rule", None, 7));
        let text = report.text(&counts(1), 1, false);
        assert!(text.contains("paths: [\"/proc/self/environ\"]") && !text.contains("another process"), "{text}");
        let mut report = Report::default();
        report.add(&denied("/proc/7/environ", "no_rule", None, 8));
        let text = report.text(&counts(1), 1, false);
        assert!(text.contains("another process") && text.contains("/proc/*/") && !text.contains("files:"), "{text}");
        // A denial by a rule says which; there is nothing to allow.
        let mut report = Report::default();
        report.add(&denied("/proc/7/environ", "deny_rule", Some("files[0]"), 8));
        assert!(!report.text(&counts(1), 1, false).contains("another process"));
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let mut report = Report::default();
        for number in 0..KEPT + 5 {
            report.add(&denied(&format!("/{number}"), "no_rule", None, 1));
        }
        let text = report.text(&counts(KEPT as u64 + 5), 1, false);
        assert!(text.contains(&format!("and {} more", KEPT + 5 - SHOWN)), "{text}");
    }

    #[test]
    fn a_program_that_the_kernel_skipped_is_said_first() {
        let mut report = Report::default();
        report.add(&denied("/etc/shadow", "no_rule", None, 1));
        let (action, enforcement) = ("degraded".into(), "full".into());
        let messages = vec!["hook file_open: skipped".to_owned()];
        let body = Body::Monitor(MonitorChange { action, version: String::new(), enforcement, messages });
        report.add(&Record { time: String::new(), seq: Some(2), node_name: "n".into(), body });
        let text = report.text(&counts(1), 1, false);
        assert_eq!(text.lines().next(), Some("hook file_open: skipped"), "{text}");
    }

    #[test]
    fn losses_and_killed_processes_are_said() {
        let text = Report::default().text(&Counts { denied: 10, lost: 7, ..Counts::default() }, 1, true);
        assert!(text.contains("7 of these have no record") && text.contains("were killed"), "{text}");
    }
}
