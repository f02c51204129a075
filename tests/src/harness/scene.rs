//! One scenario's own place: a directory, a cgroup, an agent. Taken away at the end, however the scenario ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::cgroup::{self, Cgroup};
use super::control;
use super::daemon::Daemon;
use super::policy;
use super::process::{Process, Step};
use super::records::Records;

/// Directory of all workspaces, on a tmpfs.
const WORKSPACES: &str = "/tmp/scenarios";

/// Where a scenario happens.
pub struct Scene<'a> {
    /// The daemon.
    pub daemon: &'a mut Daemon,
    /// The audit log.
    pub records: &'a mut Records,
    /// A directory of its own.
    pub workspace: PathBuf,
    /// A cgroup of its own, outside of the agents root.
    pub cgroup: Cgroup,
    /// The agent, while the cgroup is one.
    pub agent: Option<String>,
    /// Line of the log at which the scenario began.
    pub start: usize,
}

impl<'a> Scene<'a> {
    /// Makes the place of the scenario with this number.
    pub fn new(number: usize, daemon: &'a mut Daemon, records: &'a mut Records) -> Result<Self> {
        let workspace = Path::new(WORKSPACES).join(number.to_string());
        let _ = fs::remove_dir_all(&workspace);
        fs::create_dir_all(&workspace).context("make the workspace")?;
        let cgroup = Cgroup::make(&format!("/scenarios/{number}"))?;
        records.read()?;
        let start = records.lines.len();
        Ok(Self { daemon, records, workspace, cgroup, agent: None, start })
    }

    /// A path in the workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.workspace.join(name)
    }

    /// Makes a file in the workspace, with the directories above it.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let above = path.parent().expect("a path in the workspace has a parent");
        fs::create_dir_all(above).expect("the workspace is a tmpfs with room");
        fs::write(&path, text).expect("the workspace is a tmpfs with room");
        path
    }

    /// A process in the scenario's cgroup.
    pub fn process(&self) -> Result<Process> {
        Process::start_in(&self.cgroup.directory())
    }

    /// Binds the cgroup to a policy of this text; see [`policy::document`].
    pub fn bind(&mut self, spec: &str) -> Result<String> {
        self.bind_as("scenario", spec, json!({}))
    }

    /// Binds the cgroup to a policy with this name, with more in the request.
    pub fn bind_as(&mut self, name: &str, spec: &str, more: Value) -> Result<String> {
        let text = policy::document(name, spec, &self.workspace);
        let documents = json!([{"name": "", "path": "scenario.yaml", "text": text}]);
        let mut body = json!({"documents": documents, "cgroup": self.cgroup.path});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        self.bind_with(&body)
    }

    /// Binds the cgroup to a policy of the policy directory.
    pub fn bind_named(&mut self, name: &str, variables: Value) -> Result<String> {
        self.bind_with(&json!({"policy": name, "variables": variables, "cgroup": self.cgroup.path}))
    }

    fn bind_with(&mut self, body: &Value) -> Result<String> {
        let answer = control::ask("POST", "/v1/agents", body)?;
        let id = answer["id"].as_str().context("an agent has an id")?.to_owned();
        self.agent = Some(id.clone());
        Ok(id)
    }

    /// Unbinds the cgroup; what was counted for the agent.
    pub fn unbind(&mut self) -> Result<Value> {
        let id = self.agent.take().context("the scenario has no agent")?;
        let answer = control::ask("DELETE", &format!("/v1/agents/{id}"), &Value::Null)?;
        Ok(answer["counts"].clone())
    }

    /// Waits for a record of the scenario's agent.
    pub fn record(&mut self, expected: &Value) -> Result<Value> {
        let id = self.agent.clone().context("the scenario has no agent")?;
        self.records.wait(self.start, &format!("\"id\":\"{id}\""), expected)
    }

    /// Unbinds, and fails unless exactly so many operations were denied, each of them told by a record.
    pub fn unbind_after(&mut self, denials: u64) -> Result<()> {
        let (id, start) = (self.agent.clone().unwrap_or_default(), self.start);
        let counts = self.unbind()?;
        let told = ["written", "folded"].map(|name| counts[name].as_u64().unwrap_or(0)).iter().sum::<u64>();
        if counts["denied"] != denials || told != denials || counts["lost"] != 0 {
            let told = self.told_of(&id, start);
            anyhow::bail!("{denials} denials were expected, counted are {counts}:\n    {told}");
        }
        Ok(())
    }

    /// What the records so far tell of the scenario's agent.
    pub fn told(&mut self) -> String {
        self.told_of(&self.agent.clone().unwrap_or_default(), self.start)
    }

    fn told_of(&mut self, id: &str, start: usize) -> String {
        let _ = self.records.read();
        let word = format!("\"id\":\"{id}\"");
        self.records
            .about(start, &word)
            .flatten()
            .map(|record| super::records::short(&record))
            .collect::<Vec<_>>()
            .join("\n    ")
    }

    /// Does a step in `process` that must be denied with this record.
    pub fn denied(&mut self, process: &mut Process, step: &Step, errno: i32, expected: &Value) -> Result<()> {
        process.expect(step, errno, "bound")?;
        self.record(expected).with_context(|| super::process::shown(step)).map(drop)
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.daemon.signal(libc::SIGCONT);
        // A scenario that failed in between must not fail those after it.
        let _ = self.daemon.ensure_runs();
        if self.agent.is_some() {
            let _ = self.unbind();
        }
        let _ = cgroup::remove(&self.cgroup.directory());
        let _ = fs::remove_dir_all(&self.workspace);
    }
}
