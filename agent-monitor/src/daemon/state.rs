//! What a later daemon must know again and the kernel can't tell it: who the agents are, and where policies come from. One
//! small file for each, written before the kernel is told and removed after; the maps in the kernel say what is in force.
//!
//! Files are replaced whole and never synced: they need to outlive this process, not the machine. After a boot nothing is
//! pinned, and then all of it is thrown away.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agent_monitor_common::class::Mode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::policies::{Candidate, Source};
use crate::bind::{Agent, Limit, Origin};

/// The directory of the files.
#[derive(Clone, Debug)]
pub struct State {
    directory: PathBuf,
    /// Why the last file could not be written; all clones have the same.
    failure: Arc<Mutex<Option<String>>>,
    /// The same for the accounts: other files don't tell that these can be written.
    accounts_failure: Arc<Mutex<Option<String>>>,
}

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentState {
    /// Its number in the kernel.
    pub number: u32,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Path of its cgroup; empty where that is no text, or gone.
    pub cgroup: String,
    /// Id of its cgroup.
    pub cgroup_id: u64,
    /// The word for how its cgroup became an agent's.
    pub origin: String,
    /// Slot of its policy.
    pub slot: u32,
    /// The mode that was asked for; none where it follows the policy's.
    pub mode: Option<String>,
    /// When its binding ends; none where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// Where the policy in a slot comes from. What it says is in its image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyState {
    /// The slot.
    pub slot: u32,
    /// The word for where it comes from.
    pub source: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where its document comes from.
    pub path: String,
    /// Its document.
    pub text: String,
    /// Values given for its variables.
    pub variables: BTreeMap<String, String>,
    /// Warnings.
    pub messages: Vec<String>,
    /// What its document includes.
    pub included: Vec<IncludedState>,
    /// Paths that it protects beside the monitor's own.
    #[serde(default)]
    pub also: Vec<String>,
    /// What its image was made of, and by what; empty where that is not known.
    #[serde(default)]
    pub seal: String,
}

/// A document that a policy includes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncludedState {
    /// The name by which it is included.
    pub name: String,
    /// The document that includes it.
    pub beside: String,
    /// Where it comes from.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Numbers that must not be given twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Every agent so far has a lower number.
    pub next_agent: u32,
    /// The slot that was taken last.
    pub last_slot: u32,
    /// The last generation of each policy.
    pub generations: HashMap<String, u64>,
    /// That of policies whose names are forgotten; no one of theirs is higher.
    #[serde(default)]
    pub forgotten_generation: u64,
}

impl State {
    /// The state in this directory, which is made where it is missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        for path in ["agents", "policies"] {
            DirBuilder::new().recursive(true).mode(0o700).create(directory.join(path))?;
        }
        Ok(Self { directory: directory.to_owned(), failure: Arc::default(), accounts_failure: Arc::default() })
    }

    /// Throws all of it away: what it speaks of is gone.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn clear(&self) -> io::Result<()> {
        for path in ["agents", "policies"] {
            for entry in fs::read_dir(self.directory.join(path))? {
                fs::remove_file(entry?.path())?;
            }
        }
        for path in ["numbers", "accounts", "base"] {
            ignore_missing(fs::remove_file(self.path(path)))?;
        }
        Ok(())
    }

    /// Why the last file could not be written, if it could not.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the accounts could not be written the last time, if they could not.
    pub fn accounts_failure(&self) -> Option<String> {
        self.accounts_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes down what became of each agent's operations, and says whether that is done.
    pub fn put_accounts(&self, accounts: &impl Serialize) -> bool {
        let path = self.path("accounts");
        let failure = replace(&path, accounts).err().map(|error| format!("{}: {error}", path.display()));
        let mut known = self.accounts_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.as_ref().filter(|_| known.is_none()) {
            tracing::error!("cannot write {error}; a later daemon would take more for lost than was");
        }
        *known = failure;
        known.is_none()
    }

    /// A file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Writes down who an agent is.
    pub fn put_agent(&mut self, agent: &Agent) {
        let state = AgentState {
            number: agent.number,
            id: agent.identity.id.clone(),
            name: agent.identity.name.clone(),
            labels: agent.identity.labels.clone(),
            // A later daemon finds the path by the id; this one is for a cgroup that is gone then.
            cgroup: agent.cgroup.as_deref().and_then(Path::to_str).unwrap_or_default().to_owned(),
            cgroup_id: agent.identity.cgroup_id,
            origin: agent.origin.name().to_owned(),
            slot: agent.slot,
            mode: agent.mode_fixed.then(|| agent.mode.name().to_owned()),
            limit: agent.limit.clone(),
        };
        self.put(&format!("agents/{}", agent.number), &state);
    }

    /// Forgets an agent.
    pub fn drop_agent(&mut self, number: u32) {
        self.remove(&format!("agents/{number}"));
    }

    /// Writes down where a policy comes from.
    pub fn put_policy(&mut self, slot: u32, source: &Source, candidate: &Candidate) {
        self.put(&format!("policies/{slot}"), &PolicyState::of(slot, source, candidate));
    }

    /// Forgets a policy.
    pub fn drop_policy(&mut self, slot: u32) {
        self.remove(&format!("policies/{slot}"));
    }

    /// Writes down which numbers were given.
    pub fn put_numbers(&mut self, numbers: &Numbers) {
        self.put("numbers", numbers);
    }

    /// All agents. A file that can't be read is told and left out.
    pub fn agents(&self) -> Vec<AgentState> {
        read_all(&self.directory.join("agents"))
    }

    /// All policies by slot.
    pub fn policies(&self) -> HashMap<u32, PolicyState> {
        read_all(&self.directory.join("policies")).into_iter().map(|one: PolicyState| (one.slot, one)).collect()
    }

    /// The numbers that were given.
    pub fn numbers(&self) -> Numbers {
        read(&self.path("numbers")).unwrap_or_default()
    }

    // What can't be written down changes nothing that is enforced: a later daemon knows the agent by its cgroup then.
    fn put(&mut self, name: &str, value: &impl Serialize) {
        self.note(replace(&self.path(name), value));
    }

    fn remove(&mut self, name: &str) {
        self.note(ignore_missing(fs::remove_file(self.path(name))));
    }

    fn note(&mut self, result: io::Result<()>) {
        let failure = result.err().map(|error| error.to_string());
        let mut known = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.as_ref().filter(|_| known.is_none()) {
            let directory = self.directory.display();
            tracing::error!(
                "cannot write {directory}: {error}; a later daemon would know agents by their cgroups only"
            );
        }
        *known = failure;
    }
}

/// Replaces a file whole, or leaves it as it is.
///
/// # Errors
/// It can't be written.
pub fn replace(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    fs::rename(&new, path)
}

/// Reads a file; one that is not there, or is broken, gives nothing.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        other => other.map_err(|error| error.to_string()),
    };
    let value = text.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
    value.inspect_err(|error| tracing::error!("cannot read {}: {error}", path.display())).ok()
}

fn read_all<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    // What was not renamed yet was not told to the kernel either.
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| read(&path))
        .collect()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl PolicyState {
    /// Of a policy in a slot.
    pub fn of(slot: u32, source: &Source, candidate: &Candidate) -> Self {
        let included = candidate.included.iter().map(|one| IncludedState {
            name: one.name.clone(),
            beside: one.beside.clone(),
            path: one.document.path.clone(),
            text: one.document.text.clone(),
        });
        Self {
            slot,
            source: source.name().to_owned(),
            labels: candidate.labels.clone(),
            path: candidate.path.clone(),
            text: candidate.text.clone(),
            variables: candidate.variables.clone(),
            messages: candidate.messages.clone(),
            included: included.collect(),
            also: candidate.also.clone(),
            seal: candidate.seal.clone(),
        }
    }

    /// Of a policy of which nothing is known but its image.
    pub fn unknown() -> Self {
        Self {
            slot: 0,
            source: String::new(),
            labels: BTreeMap::new(),
            path: "unknown".to_owned(),
            text: String::new(),
            variables: BTreeMap::new(),
            messages: vec![
                "its document is not known: it was taken over from an earlier daemon without one".to_owned(),
            ],
            included: Vec::new(),
            also: Vec::new(),
            seal: String::new(),
        }
    }
}

impl AgentState {
    /// How its cgroup became an agent's.
    pub fn origin(&self) -> Origin {
        let all = [Origin::Directory, Origin::Below, Origin::Made, Origin::Bound];
        all.into_iter().find(|origin| origin.name() == self.origin).unwrap_or(Origin::Below)
    }

    /// The mode that was asked for.
    pub fn mode(&self) -> Option<Mode> {
        self.mode.as_deref().and_then(Mode::from_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::Now;
    use crate::record::AgentRef;

    #[test]
    fn what_was_written_is_read_again_and_a_broken_file_is_left_out() {
        let directory = std::env::temp_dir().join(format!("agent-monitor-{}-state", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let mut state = State::open(&directory).expect("directory can be made");
        let now = Now { boot_id: "b".into(), boot_ns: 1, unix_ns: 2 };
        let limit = Limit::after(std::time::Duration::from_secs(1), &now);
        let agent = |number| Agent {
            number,
            identity: Arc::new(AgentRef { id: format!("a-{number}"), cgroup_id: 7, ..AgentRef::default() }),
            cgroup: Some("/a".into()),
            origin: Origin::Bound,
            slot: 3,
            mode: Mode::Audit,
            mode_fixed: true,
            limit: (number == 1).then(|| limit.clone()),
            tally: Arc::default(),
        };
        state.put_agent(&agent(1));
        state.put_agent(&agent(2));
        state.put_agent(&agent(3));
        state.drop_agent(2);
        fs::write(state.path("agents/3"), "{").expect("file can be written");
        let known = State::open(&directory).expect("directory is there").agents();
        assert_eq!(known.len(), 1);
        let one = known.first().expect("one is left");
        assert_eq!(
            (one.number, one.id.as_str(), one.origin(), one.mode()),
            (1, "a-1", Origin::Bound, Some(Mode::Audit))
        );
        assert_eq!(one.limit, Some(limit.clone()));
        assert!(state.failure().is_none());
        // What the accounts are written to first.
        let new = state.path("accounts").with_extension("new");
        fs::create_dir(&new).expect("directory can be made");
        assert!(!state.clone().put_accounts(&1));
        state.put_agent(&agent(1));
        let why = state.accounts_failure().expect("they can't be written");
        assert!(why.contains("accounts.json: ") && state.failure().is_none(), "{why}");
        fs::remove_dir(&new).expect("directory can be removed");
        assert!(state.put_accounts(&1) && state.accounts_failure().is_none());
        state.clear().expect("files can be removed");
        assert!(state.agents().is_empty() && state.numbers() == Numbers::default());
        fs::remove_dir_all(directory).expect("directory can be removed");
    }
}
