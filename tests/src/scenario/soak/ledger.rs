//! What the audit log tells of the soak's agents, read as it is written and kept in few numbers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::harness::control::ask;

/// What was denied to each.
const DENIALS: u64 = 2;
/// How many troubles are kept in words.
const SHOWN: usize = 10;

/// The log and what it told.
pub struct Ledger {
    path: PathBuf,
    lines: BufReader<File>,
    torn: Vec<u8>,
    /// The last line, where it is no record.
    cut: Option<String>,
    /// Agents that have not ended: denials with a record, in addition in these, and lost.
    agents: HashMap<String, [u64; 3]>,
    ended: u64,
    /// Those of them of which only the number is known.
    numbered: u64,
    sums: [u64; 4],
    next: Option<u64>,
    troubles: Vec<String>,
}

impl Ledger {
    /// Opens the log.
    pub fn open(path: PathBuf) -> Result<Self> {
        let lines = BufReader::new(File::open(&path).with_context(|| format!("open {}", path.display()))?);
        let agents = HashMap::new();
        Ok(Self {
            path,
            lines,
            torn: Vec::new(),
            cut: None,
            agents,
            ended: 0,
            numbered: 0,
            sums: [0; 4],
            next: None,
            troubles: Vec::new(),
        })
    }

    /// Reads what has come, over rotations.
    pub fn read(&mut self) -> Result<()> {
        loop {
            // Asked before reading to the end: what comes after a rotation is in the new file.
            let rotated = std::fs::metadata(&self.path)
                .is_ok_and(|now| self.lines.get_ref().metadata().is_ok_and(|ours| ours.ino() != now.ino()));
            loop {
                self.lines.read_until(b'\n', &mut self.torn)?;
                if self.torn.last() != Some(&b'\n') {
                    break;
                }
                let line = std::mem::take(&mut self.torn);
                match serde_json::from_slice(&line) {
                    Ok(record) => self.note(&record),
                    // A daemon was killed while it wrote; the next one says so.
                    Err(_) => self.cut_off(String::from_utf8_lossy(&line).into_owned()),
                }
            }
            if !rotated {
                return Ok(());
            }
            self.lines = BufReader::new(File::open(&self.path)?);
        }
    }

    fn cut_off(&mut self, line: String) {
        if let Some(other) = self.cut.replace(line) {
            self.trouble(format!("two lines that are no record, one behind the other: {other}"));
        }
    }

    fn note(&mut self, record: &Value) {
        if let Some(line) = self.cut.take() {
            if record["type"] != "loss" || record["reason"] != "line_cut_off" {
                self.trouble(format!("no record, and the next one does not say so: {line}"));
            }
            // What was cut off may have had a number of its own.
            self.next = None;
        }
        let seq = record["seq"].as_u64();
        if self.next.is_some() && self.next != seq {
            self.trouble(format!("the number {seq:?} came where {:?} was due", self.next));
        }
        self.next = seq.map(|seq| seq + 1);
        let id = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let count = record["count"].as_u64().unwrap_or(0);
        match record["type"].as_str() {
            Some("operation") if record["verdict"] == "deny" => {
                let told = self.agents.entry(id(&record["agent"]["id"])).or_default();
                told[0] += 1;
                told[1] += count.saturating_sub(1);
            }
            Some("loss") => {
                if let Some(agent) = record["agent"].as_str() {
                    self.agents.entry(agent.to_owned()).or_default()[2] += count;
                }
            }
            Some("agent") if record["action"] == "exited" => self.end(record),
            _ => {}
        }
    }

    /// The last record of an agent: its counts are those of the log, and of what was done.
    fn end(&mut self, record: &Value) {
        let id = record["agent"]["id"].as_str().unwrap_or_default();
        // Of one whose announcement went with a daemon that was killed only the number is known.
        let is_numbered = id.starts_with("agent-") && record["agent"]["cgroup"].is_null();
        self.numbered += u64::from(is_numbered);
        if !is_numbered && !record["agent"]["cgroup"].as_str().is_some_and(|cgroup| cgroup.contains("/life")) {
            return;
        }
        let told = self.agents.remove(id).unwrap_or_default();
        let counts = ["denied", "written", "folded", "lost"].map(|name| record["counts"][name].as_u64().unwrap_or(0));
        if counts[1..] != told || told.iter().sum::<u64>() != counts[0] || counts[0] != DENIALS {
            let cgroup = &record["agent"]["cgroup_id"];
            let text = format!(
                "of {DENIALS} denials the log tells of {told:?}, and the end of its agent of {counts:?}:\n      {}",
                self.about(&[format!("\"id\":\"{id}\""), format!("\"cgroup_id\":{cgroup},")]).join("\n      ")
            );
            self.trouble(text);
        }
        for (sum, count) in self.sums.iter_mut().zip(counts) {
            *sum += count;
        }
        self.ended += 1;
    }

    /// All lines of the log with one of these words, as far as it was not removed.
    fn about(&self, words: &[String]) -> Vec<String> {
        let files = self.path.parent().and_then(|place| std::fs::read_dir(place).ok()).into_iter().flatten().flatten();
        let is_log = |path: &PathBuf| path.to_string_lossy().starts_with(&*self.path.to_string_lossy());
        let files = files.map(|entry| entry.path()).filter(is_log);
        let lines = files.flat_map(|path| File::open(path).into_iter().flat_map(|file| BufReader::new(file).lines()));
        let mut found: Vec<String> =
            lines.map_while(Result::ok).filter(|line| words.iter().any(|word| line.contains(word))).collect();
        found.sort();
        found
    }

    fn trouble(&mut self, text: String) {
        if self.troubles.len() < SHOWN {
            self.troubles.push(text);
        } else {
            self.troubles[SHOWN - 1] = "and more".to_owned();
        }
    }

    /// Waits until so many agents have ended.
    pub fn until(&mut self, lives: u64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.ended < lives {
            if Instant::now() >= deadline {
                let known = ask("GET", "/v1/agents", &Value::Null)?;
                let known = known.as_array().into_iter().flatten().filter(|one| one["origin"] != "directory");
                let known: Vec<String> = known.take(SHOWN).map(Value::to_string).collect();
                bail!(
                    "of {lives} agents {} ended; {:?}\n    known are still: {}\n    {} cgroups are removed and not released",
                    self.ended,
                    self.troubles,
                    known.join("\n    "),
                    dying()?
                );
            }
            std::thread::sleep(Duration::from_millis(100));
            self.read()?;
        }
        println!("{} cgroups of agents are removed and not released", dying()?);
        Ok(())
    }

    /// The sums, in words.
    pub fn sums(&self) -> String {
        let [denied, written, folded, lost] = self.sums;
        format!(
            "{} ends told ({} by number): {denied} denied = {written} written + {folded} folded + {lost} lost",
            self.ended, self.numbered
        )
    }

    /// Fails if anything was not as it should be.
    pub fn check(&self) -> Result<()> {
        ensure!(self.troubles.is_empty(), "{}", self.troubles.join("\n    "));
        Ok(())
    }
}

/// How many cgroups of agents are removed, and still held by something.
fn dying() -> Result<u64> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/agents.slice/cgroup.stat")?;
    let number = text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
    Ok(number.context("no number of dying cgroups")?.trim().parse()?)
}
