//! The audit log, as somebody who reads it sees it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::changes::Changes;
use super::wait::limit;

/// The audit log.
pub const LOG: &str = "/var/log/agent-monitor/audit.jsonl";

/// The lines of the log, read as they come.
#[derive(Debug)]
pub struct Records {
    file: File,
    changes: Changes,
    torn: Vec<u8>,
    /// Every line so far.
    pub lines: Vec<String>,
}

impl Records {
    /// Opens the log, from its start.
    pub fn open(log: &Path) -> Result<Self> {
        let file = File::open(log).with_context(|| format!("open {}", log.display()))?;
        let changes = Changes::of(log, libc::IN_MODIFY)?;
        Ok(Self { file, changes, torn: Vec::new(), lines: Vec::new() })
    }

    /// Reads what has come since the last time.
    pub fn read(&mut self) -> Result<()> {
        let mut bytes = std::mem::take(&mut self.torn);
        self.file.read_to_end(&mut bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.torn = bytes.split_off(end);
        let text = String::from_utf8(bytes).context("the audit log is not UTF-8")?;
        self.lines.extend(text.lines().map(str::to_owned));
        Ok(())
    }

    /// Waits for the first record, from line `start` on, that names `word` and holds all of `expected`.
    pub fn wait(&mut self, start: usize, word: &str, expected: &Value) -> Result<Value> {
        let deadline = Instant::now() + limit();
        let mut next = start;
        loop {
            self.read()?;
            while let Some(line) = self.lines.get(next) {
                next += 1;
                if line.contains(word) {
                    let found: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
                    if holds(&found, expected) {
                        return Ok(found);
                    }
                }
            }
            if !self.changes.next(deadline) {
                let mut seen = VecDeque::new();
                for record in self.about(start, word) {
                    seen.truncate(7);
                    seen.push_front(short(&record?));
                }
                let seen = Vec::from(seen);
                bail!("no record {expected}; the last of {word} were:\n    {}", seen.join("\n    "));
            }
        }
    }

    /// All records from line `start` on that name `word`. One after the other: all those of a flood have no room at once.
    pub fn about(&self, start: usize, word: &str) -> impl Iterator<Item = Result<Value>> {
        let lines = self.lines.iter().skip(start).filter(move |line| line.contains(word));
        lines.map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
    }

    /// How many of the records that [`Self::about`] gives hold what is expected.
    pub fn count(&self, start: usize, word: &str, expected: &Value) -> Result<usize> {
        let found = self.about(start, word).collect::<Result<Vec<_>>>()?;
        Ok(found.iter().filter(|record| holds(record, expected)).count())
    }

    /// Fails unless the records from line `start` on that name `word` tell of as many denials, in records of their own, in
    /// addition in these, and as lost, as these counts of an agent say, and of `denials` in all.
    pub fn account(&self, start: usize, word: &str, counts: &Value, denials: u64) -> Result<()> {
        let (mut written, mut folded, mut lost) = (0, 0, 0);
        let mut classes = std::collections::BTreeMap::<String, [u64; 2]>::new();
        for record in self.about(start, word) {
            let record = record?;
            let count = record["count"].as_u64();
            if record["type"] == "operation" && record["verdict"] == "deny" {
                let more = count.with_context(|| format!("no count: {record}"))?.saturating_sub(1);
                let [records, repeats] =
                    classes.entry(record["class"].as_str().unwrap_or_default().to_owned()).or_default();
                (*records, *repeats) = (*records + 1, *repeats + more);
                (written, folded) = (written + 1, folded + more);
            }
            lost += count.filter(|_| record["type"] == "loss").unwrap_or_default();
        }
        let told = json!({"denied": denials, "written": written, "folded": folded, "lost": lost});
        ensure!(holds(counts, &told), "counted are {counts}, and the log tells of {told}");
        for (class, counted) in counts["classes"].as_object().into_iter().flatten() {
            let number = |name: &str| counted[name].as_u64().unwrap_or(0);
            let told = classes.remove(class).unwrap_or_default();
            ensure!(told == [number("written"), number("folded")], "of {class} the log tells of {told:?}: {counted}");
            ensure!(number("denied") == told[0] + told[1] + number("lost"), "of {class} is counted {counted}");
        }
        ensure!(classes.is_empty(), "the log tells of {classes:?}, and the counts do not: {counts}");
        ensure!(written + folded + lost == denials, "of {denials} denials the log tells of {told}");
        Ok(())
    }
}

/// Whether `found` has everything that `expected` has. Objects may have more; all else is equal or not.
pub fn holds(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|found| holds(found, value)))
        }
        _ => found == expected,
    }
}

/// What matters of a record, in a line.
pub fn short(record: &Value) -> String {
    let keys = ["type", "action", "operation", "access", "verdict", "reason", "errno", "object"];
    let mut text: String = keys.iter().filter_map(|key| Some(format!("{key}={} ", record.get(key)?))).collect();
    if let Some(policy) = record.get("policy") {
        text.push_str(&format!("policy={} rule={}", policy["name"], policy["rule"]));
    }
    text
}
