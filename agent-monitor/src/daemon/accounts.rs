//! What became of each agent's operations, over the end of a daemon: the log is the truth about what was written and told, and
//! a checkpoint beside it says how far that was counted. A later daemon takes the checkpoint and counts the rest of the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use agent_monitor_common::class::{CLASSES, Class, Verdict};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::directory::number_of;
use super::loss::{DENIALS_NOT_WRITTEN, DENIALS_RING_FULL, Losses, TELEMETRY_NOT_WRITTEN, TELEMETRY_RING_FULL};
use super::node::Node;
use super::state;
use crate::bind::{Agent, Origin};
use crate::record::{AgentChange, Body, Record, Tally};
use crate::sink::{Position, audit};

/// Agents that ended whose counters are kept while a checkpoint can't be written.
const MOST_ENDED: usize = 65_536;

/// How far the log was counted, and what the counts were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Accounts {
    /// Where in the log this was.
    position: Position,
    /// By agent.
    agents: BTreeMap<u32, Account>,
    /// Agents whose last record is in the log, and whose counters were still there.
    #[serde(default)]
    ended: BTreeSet<u32>,
    /// Agents of which it is told that there are such; none where an earlier build did not write it down.
    #[serde(default)]
    begun: Option<BTreeSet<u32>>,
    /// Losses in the kernel that are told of.
    denials_lost: u64,
    telemetry_lost: u64,
}

/// The numbers of the agents that have an id, those first that had it first.
#[derive(Debug, Default)]
struct Numbers(HashMap<String, VecDeque<u32>>);

impl Numbers {
    fn of(&self, id: &str) -> Option<u32> {
        self.0.get(id)?.front().copied()
    }

    /// After the last record of one, the id is the next one's.
    fn end(&mut self, change: &AgentChange) {
        if change.counts.is_some()
            && let Some(numbers) = self.0.get_mut(&change.agent.id).filter(|numbers| numbers.len() > 1)
        {
            numbers.pop_front();
        }
    }
}

/// Agents that ended, by what the log tells behind the checkpoint.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ends {
    /// How many agents of each cgroup did.
    by_cgroup: BTreeMap<u64, usize>,
    /// Those of whom only the number is known.
    numbered: BTreeSet<u32>,
}

/// One agent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    denied: u64,
    audited: u64,
    /// By class: records, and denials that they count in addition.
    #[serde(default)]
    told: [[u64; 2]; CLASSES],
    /// Denials that found no room in the ring and are told of.
    lost: u64,
}

impl Node {
    /// Writes down how far the log has come and what was counted until there, once all is in it that was told so far; `false`
    /// where that is not done yet for the time before, or the stream has no room.
    pub fn checkpoint(&mut self) -> bool {
        let Some(state) = self.state.clone() else { return true };
        if self.is_at_checkpoint() || !self.write_before() {
            return false;
        }
        let (written, at_checkpoint) = oneshot::channel();
        let directory = self.directory.clone();
        let losses = self.losses.clone();
        let (ended, noted) = (self.ended.clone(), self.noted.clone());
        // In the thread that writes, between two batches: counts and position are of the same moment.
        let note = move |position| {
            let account = |number, tally: &Tally| Account {
                denied: tally.denied(),
                audited: tally.audited(),
                told: tally.told(),
                lost: losses.told(number),
            };
            let tallies: Vec<(u32, Arc<Tally>)> = {
                let table = directory.table();
                let agents = table.iter().filter(|agent| agent.origin.is_agent());
                let strangers = directory.strangers().into_iter().map(|number| (number, directory.stranger(number)));
                agents.map(|agent| (agent.number, agent.tally.clone())).chain(strangers).collect()
            };
            let accounts = Accounts {
                position,
                agents: tallies
                    .iter()
                    .map(|(number, tally)| (*number, account(*number, tally)))
                    // Most agents are never denied anything.
                    .filter(|(_, account)| *account != Account::default())
                    .collect(),
                ended: ended.iter().copied().collect(),
                begun: Some(tallies.iter().filter(|(_, tally)| tally.has_begun()).map(|(number, _)| *number).collect()),
                denials_lost: losses.denials,
                telemetry_lost: losses.telemetry,
            };
            // Their counters would fill the map, and then nobody new had any: better that an end is told twice.
            if state.put_accounts(&accounts) || ended.len() > MOST_ENDED {
                noted.lock().unwrap_or_else(PoisonError::into_inner).extend(ended);
            }
            // Nobody waits for it where the daemon has ended.
            let _ = written.send(());
        };
        let is_taken = self.outbox.between(Box::new(note));
        self.at_checkpoint = is_taken.then_some(at_checkpoint);
        is_taken
    }

    /// Whether a checkpoint is not written yet. Until then nobody leaves the table, and nothing is given up: it is counted when it
    /// is written, and the record of it stands behind.
    pub fn is_at_checkpoint(&mut self) -> bool {
        let Some(written) = &mut self.at_checkpoint else { return false };
        let waits = matches!(written.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        if !waits {
            self.at_checkpoint = None;
        }
        waits
    }

    /// Goes on counting where an earlier daemon has stopped.
    pub fn restore_accounts(&mut self, log: &Path) {
        let Some(state) = &self.state else { return };
        let mut accounts: Accounts = state::read(&state.path("accounts")).unwrap_or_default();
        let table = self.directory.table();
        let mut numbers = Numbers::default();
        // Never one that lives.
        let may_have_ended = |agent: &Agent| self.is_leaving(agent.number) || agent.cgroup.is_none();
        // Their last records stand before the checkpoint: an id that is theirs means somebody else behind it.
        let known: BTreeSet<u32> =
            accounts.ended.iter().copied().filter(|number| table.get(*number).is_some_and(may_have_ended)).collect();
        for agent in table.iter().filter(|agent| !known.contains(&agent.number)) {
            numbers.0.entry(agent.identity.id.clone()).or_default().push_back(agent.number);
        }
        // Who goes had the id before who has it now.
        for of_id in numbers.0.values_mut() {
            of_id.make_contiguous().sort_unstable_by_key(|number| (!self.is_leaving(*number), *number));
        }
        let mut ends = Ends::default();
        if let Err(error) = accounts.count_on(log, &mut numbers, &mut ends) {
            tracing::warn!(%error, "cannot read {}: what was written since is taken for lost", log.display());
        }
        for (number, Account { denied, audited, told, .. }) in &accounts.agents {
            let tally = table.get(*number).map(|agent| agent.tally.clone());
            let tally = tally.unwrap_or_else(|| self.directory.stranger(*number));
            tally.restore(*denied, *audited, *told);
        }
        let told = accounts.agents.iter().map(|(number, account)| (*number, account.lost));
        let (mut denials, mut telemetry) = (accounts.denials_lost, accounts.telemetry_lost);
        if !self.programs.shares_counters() {
            (denials, telemetry) = (0, 0);
        }
        let losses = Losses::restore(denials, telemetry, told);
        let ending = table.iter().filter(|agent| may_have_ended(agent) && !known.contains(&agent.number));
        let numbers = ends.numbers(ending.map(|agent| (agent.identity.cgroup_id, agent.number)).collect());
        let ended = accounts.ended.iter().copied().chain(numbers);
        let ended: Vec<u32> = ended.filter(|number| table.get(*number).is_none_or(may_have_ended)).collect();
        // Killed between the moment when it was known and the one when it was told.
        let is_told = |number| accounts.begun.as_ref().is_none_or(|begun| begun.contains(&number));
        let mut untold = Vec::new();
        for agent in table.iter().filter(|agent| agent.origin.is_agent() && !ended.contains(&agent.number)) {
            if is_told(agent.number) {
                agent.tally.begin();
            } else if !self.directory.is_found(agent.number) {
                untold.push(agent.clone());
            }
        }
        drop(table);
        self.losses = losses;
        ended.into_iter().for_each(|number| self.forget_told(number));
        for agent in untold {
            self.tell_agent(if agent.origin == Origin::Bound { "bound" } else { "started" }, &agent, None);
        }
    }

    /// Forgets an agent whose last record an earlier daemon wrote.
    fn forget_told(&mut self, number: u32) {
        self.leaving.retain(|leaving| leaving.number() != number);
        self.directory.table_mut().remove(number);
        self.directory.met(number);
        // Its counters go once the next checkpoint says so, too: a build that is taken over from may have them as well.
        self.ended.insert(number);
    }
}

impl Ends {
    fn add(&mut self, change: &AgentChange) {
        // Only the last record of an agent has counts.
        if change.counts.is_none() {
            return;
        }
        let is_numbered = change.agent.cgroup.is_none() && change.agent.cgroup_id == 0;
        match number_of(&change.agent.id).filter(|_| is_numbered) {
            Some(number) => drop(self.numbered.insert(number)),
            None => *self.by_cgroup.entry(change.agent.cgroup_id).or_default() += 1,
        }
    }

    /// The numbers of those that ended, of these that are to be told of, each with its cgroup. Who was bound to a cgroup
    /// first has the lower number.
    fn numbers(&self, mut leaving: Vec<(u64, u32)>) -> BTreeSet<u32> {
        leaving.sort_unstable();
        let of = |cgroup: u64| leaving.iter().filter(move |(other, _)| *other == cgroup).map(|(_, number)| *number);
        let ended = self.by_cgroup.iter().flat_map(|(cgroup, count)| of(*cgroup).take(*count));
        ended.chain(self.numbered.iter().copied()).collect()
    }
}

impl Accounts {
    /// Adds what stands in the log behind the checkpoint.
    fn count_on(&mut self, log: &Path, numbers: &mut Numbers, ends: &mut Ends) -> io::Result<()> {
        let rotated = audit::rotated(log)?;
        // What was rotated since has the checkpoint in it, or came after it. What somebody else moved away is taken for lost.
        let before = rotated.partition_point(|(first, _)| *first <= self.position.seq + 1);
        for (_, path) in rotated.iter().skip(before.saturating_sub(1)) {
            self.count_in(path, numbers, ends)?;
        }
        self.count_in(log, numbers, ends)
    }

    fn count_in(&mut self, path: &Path, numbers: &mut Numbers, ends: &mut Ends) -> io::Result<()> {
        let mut file = File::open(path)?;
        let same = file.metadata()?.ino() == self.position.inode;
        file.seek(SeekFrom::Start(if same { self.position.bytes } else { 0 }))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let record = std::str::from_utf8(&line).ok().and_then(|line| Record::parse(line).ok());
            if let Some(record) = record.filter(|record| record.seq > Some(self.position.seq)) {
                self.add(&record, numbers);
                if let Body::Agent(change) = &record.body {
                    ends.add(change);
                    numbers.end(change);
                }
            }
            line.clear();
        }
        Ok(())
    }

    fn add(&mut self, record: &Record, numbers: &Numbers) {
        let number = record.agent_id().and_then(|id| numbers.of(id).or_else(|| number_of(id)));
        let mut none = Account::default();
        let account = number.map_or(&mut none, |number| self.agents.entry(number).or_default());
        match &record.body {
            Body::Operation(operation) if operation.verdict == Verdict::Deny.name() => {
                account.denied += operation.count;
                if let Some(class) = Class::from_name(&operation.class) {
                    let [written, folded] = &mut account.told[class as usize];
                    *written += 1;
                    *folded += operation.count.saturating_sub(1);
                }
            }
            Body::Operation(operation) if operation.verdict == Verdict::Audit.name() => {
                account.audited += operation.count;
            }
            Body::Loss(loss) if loss.reason == DENIALS_RING_FULL => {
                account.lost += loss.count;
                self.denials_lost += loss.count;
            }
            Body::Loss(loss) if loss.reason == DENIALS_NOT_WRITTEN => account.denied += loss.count,
            Body::Loss(loss) if loss.reason == TELEMETRY_NOT_WRITTEN => account.audited += loss.count,
            Body::Loss(loss) if loss.reason == TELEMETRY_RING_FULL => self.telemetry_lost += loss.count,
            Body::Agent(change) if change.counts.is_none() => {
                self.begun.iter_mut().for_each(|begun| begun.extend(number));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AgentRef, Counts, PolicyRef};

    #[test]
    fn who_was_told_of_as_ended_is_not_told_of_again() {
        let end = |id: &str, cgroup_id, counts: Option<Counts>| AgentChange {
            agent: Arc::new(AgentRef { id: id.to_owned(), cgroup_id, ..AgentRef::default() }),
            counts,
            action: "exited".to_owned(),
            mode: "enforce".to_owned(),
            policy: PolicyRef::default(),
            expires: None,
        };
        let mut ends = Ends::default();
        ends.add(&end("a", 7, Some(Counts::default())));
        ends.add(&end("a", 7, None));
        ends.add(&end("b", 8, None));
        ends.add(&end("agent-2147483653", 0, Some(Counts::default())));
        // The cgroup was bound again since: its second agent has not ended, or nobody was told.
        let leaving = vec![(7, 4), (8, 5), (7, 3)];
        assert_eq!(ends.numbers(leaving), BTreeSet::from([3, 2_147_483_653]));
    }

    fn line(seq: u64, body: &str) -> String {
        format!("{{\"time\":\"t\",\"seq\":{seq},\"node_name\":\"n\",{body}}}\n")
    }

    fn lost(seq: u64, agent: &str, count: u64) -> String {
        let agent = if agent.is_empty() { "null".to_owned() } else { format!("\"{agent}\"") };
        let head = "\"type\":\"loss\",\"stage\":\"kernel\",\"reason\":\"denials_ring_full\",\"after_seq\":1,\"before_seq\":null";
        line(seq, &format!("{head},\"count\":{count},\"agent\":{agent}"))
    }

    #[test]
    fn whose_start_stands_behind_the_checkpoint_has_begun() {
        let body = |action: &str, counts: &str| {
            let agent = "{\"id\":\"a\",\"name\":\"a\",\"labels\":{},\"cgroup_id\":7,\"cgroup\":null}";
            let policy = "{\"name\":\"p\",\"generation\":1,\"rule\":null,\"rule_reason\":null}";
            format!(
                "\"type\":\"agent\",\"action\":\"{action}\",\"agent\":{agent},\"mode\":\"enforce\",\"policy\":{policy},\"counts\":{counts}"
            )
        };
        let record = Record::parse(&line(1, &body("started", "null"))).expect("is a record");
        let numbers = Numbers(HashMap::from([("a".to_owned(), VecDeque::from([9]))]));
        for (before, after) in [(None, None), (Some(BTreeSet::from([3])), Some(BTreeSet::from([3, 9])))] {
            let mut accounts = Accounts { begun: before, ..Accounts::default() };
            accounts.add(&record, &numbers);
            assert_eq!(accounts.begun, after);
        }
    }

    #[test]
    fn what_stands_behind_the_checkpoint_is_counted_and_nothing_twice() {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-accounts", std::process::id()));
        let first = lost(1, "a", 5) + &lost(2, "a", 1);
        std::fs::write(&path, first.clone() + &lost(3, "a", 7) + &lost(4, "", 2) + &lost(5, "gone", 1) + "{\"torn")
            .expect("file can be written");
        let metadata = std::fs::metadata(&path).expect("file is there");
        let mut numbers = Numbers(HashMap::from([("a".to_owned(), VecDeque::from([9]))]));
        let told = |accounts: &Accounts| (accounts.agents.get(&9).map(|account| account.lost), accounts.denials_lost);
        let mut accounts = Accounts {
            position: Position { seq: 2, inode: metadata.ino(), bytes: first.len() as u64 },
            agents: BTreeMap::from([(9, Account { lost: 6, ..Account::default() })]),
            denials_lost: 6,
            ..Accounts::default()
        };
        let before = accounts.clone();
        accounts.count_on(&path, &mut numbers, &mut Ends::default()).expect("log can be read");
        assert_eq!(told(&accounts), (Some(13), 16));
        // In another file all lines are looked at, and those before the checkpoint are known by their numbers.
        let mut moved = Accounts { position: Position { inode: 0, ..before.position }, ..before.clone() };
        moved.count_on(&path, &mut numbers, &mut Ends::default()).expect("log can be read");
        assert_eq!(told(&moved), (Some(13), 16));
        // It was rotated twice since.
        let (second, third) = (lost(6, "a", 1), lost(7, "a", 2));
        let rotated = |seq: u64| path.with_extension(format!("{seq:020}"));
        std::fs::rename(&path, rotated(1)).expect("file can be renamed");
        std::fs::write(rotated(6), second).expect("file can be written");
        std::fs::write(&path, third).expect("file can be written");
        let mut again = before;
        again.count_on(&path, &mut numbers, &mut Ends::default()).expect("log can be read");
        assert_eq!(told(&again), (Some(16), 19));
        for path in [path.clone(), rotated(1), rotated(6)] {
            std::fs::remove_file(path).expect("file can be removed");
        }
    }
}
