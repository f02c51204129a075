//! Agents of the configuration. Each is a path at which somebody else makes and removes a cgroup, as a service manager does
//! at each restart: the kernel binds nothing there, and so this looks for a new one and binds it. Until it is bound what is
//! in it is not guarded, and the daemon says so.

use std::io::ErrorKind;

use anyhow::{Context, Result, anyhow};

use super::requests::{self, Compiled, Found};
use super::serve::{Background, Daemon};
use crate::bind::{Agent, Origin};
use crate::config::StaticAgent;
use crate::control::api::{CreateAgent, Refusal};

/// What to do about a cgroup that is made anew.
const BETTER: &str = "in the cgroup of a policy below the agents root it would be bound at its creation";

/// An agent of the configuration.
pub struct Configured {
    agent: StaticAgent,
    /// The cgroup that was bound last. One that is still there and not bound any more was unbound by request.
    bound: Option<u64>,
    /// Why what is at its path is not guarded.
    why: Option<String>,
    /// It could not be bound; `why` says why.
    refused: bool,
    /// Its policy is being compiled.
    compiling: bool,
}

impl Configured {
    /// One that is not bound yet.
    pub fn new(agent: StaticAgent) -> Self {
        Self { agent, bound: None, why: None, refused: false, compiling: false }
    }

    /// Why what is at its path is not guarded.
    pub fn why(&self) -> Option<&String> {
        self.why.as_ref()
    }

    fn request(&self) -> CreateAgent {
        let agent = self.agent.clone();
        CreateAgent {
            name: agent.name,
            policy: Some(agent.policy),
            variables: agent.variables,
            labels: agent.labels,
            mode: agent.mode,
            cgroup: Some(agent.cgroup),
            ..CreateAgent::default()
        }
    }
}

impl Daemon {
    /// Binds the agents of the configuration whose cgroups are there, and what was taken over to what it says now.
    ///
    /// # Errors
    /// What stands against it.
    pub async fn bind_configured(&mut self) -> Result<()> {
        self.configured = self.config.agents.iter().cloned().map(Configured::new).collect();
        for index in 0..self.configured.len() {
            let Some(one) = self.configured.get(index) else { continue };
            let (request, path) = (one.request(), one.agent.cgroup.clone());
            let Some(id) = self.look_for(&path)? else { continue };
            let known = self.node.directory.table().by_cgroup(id).cloned();
            let bound = match known.filter(|agent| agent.origin == Origin::Bound) {
                Some(agent) => requests::renew_now(self, agent.number, request).await.map(|()| id),
                None => requests::create_now(self, request).await.map(|agent| agent.identity.cgroup_id),
            };
            let bound =
                bound.map_err(|refusal| anyhow!("cannot bind the cgroup {path} of the configuration: {refusal}"))?;
            self.note_configured(index, |one| one.bound = Some(bound));
        }
        self.check_configured();
        Ok(())
    }

    /// Looks whether the agents of the configuration are bound, and binds what is new at their paths.
    pub fn check_configured(&mut self) {
        for index in 0..self.configured.len() {
            if let Err(error) = self.check_one(index) {
                self.set_why(index, Some(format!("{error:#}")));
            }
        }
    }

    fn check_one(&mut self, index: usize) -> Result<()> {
        let Some(one) = self.configured.get(index) else { return Ok(()) };
        let (path, before, refused, compiling) = (one.agent.cgroup.clone(), one.bound, one.refused, one.compiling);
        if let Some(watch) = &self.cgroup_watch {
            // Before it is looked for, so that what is made after is told.
            watch.look_at(&self.node.directory.hierarchy.directory(&path));
        }
        let found = self.look_for(&path)?;
        if let Some(before) = before.filter(|before| found != Some(*before)) {
            let mut table = self.node.directory.table_mut();
            let lingers = table.by_cgroup(before).map(|agent| agent.number);
            lingers.into_iter().for_each(|number| table.lose_path(number));
        }
        let Some(id) = found else {
            let gone = if before.is_some() { "is gone" } else { "is not there" };
            let why = format!(
                "the cgroup {path} of the configuration {gone}: it is bound when it is made, and not guarded before; {BETTER}"
            );
            self.note_configured(index, |one| one.refused = false);
            self.set_why(index, Some(why));
            return Ok(());
        };
        let known = self.node.directory.table().by_cgroup(id).is_some_and(|agent| agent.origin == Origin::Bound);
        if known || before == Some(id) {
            self.note_configured(index, |one| one.bound = Some(id));
            self.set_why(index, None);
            return Ok(());
        }
        if !refused {
            // Told even where it is bound at once: what was in it until now was not guarded.
            let made = if before.is_some() { "was made anew" } else { "was made" };
            let why = format!(
                "the cgroup {path} of the configuration {made}, and is not guarded until it is bound; {BETTER}"
            );
            self.set_why(index, Some(why));
        }
        if !compiling {
            self.bind_one(index);
        }
        Ok(())
    }

    fn bind_one(&mut self, index: usize) {
        let Some(one) = self.configured.get(index) else { return };
        let request = one.request();
        match requests::find(self, &request) {
            Ok(Found::Loaded(slot)) => self.finish_configured(index, Ok(Compiled::Loaded(slot))),
            Ok(Found::Document(document)) => {
                self.note_configured(index, |one| one.compiling = true);
                let (compiler, background) = (self.node.compiler.clone(), self.background.clone());
                tokio::spawn(async move {
                    let compiled = requests::compile(compiler, document, &request).await.map(Compiled::New);
                    let _ = background.send(Background::Configured(index, compiled)).await;
                });
            }
            Err(refusal) => self.finish_configured(index, Err(refusal)),
        }
    }

    /// Binds an agent of the configuration whose policy is there.
    pub fn finish_configured(&mut self, index: usize, policy: Result<Compiled, Refusal>) {
        let Some(one) = self.configured.get_mut(index) else { return };
        one.compiling = false;
        let (request, path) = (one.request(), one.agent.cgroup.clone());
        if policy.as_ref().is_ok_and(|policy| requests::is_stale(self, &request, policy)) {
            return self.bind_one(index);
        }
        match policy.and_then(|policy| requests::create(self, request, policy)) {
            Ok(agent) => {
                tracing::info!(cgroup = path, "a cgroup of the configuration is bound");
                self.note_configured(index, |one| one.bound = Some(agent.identity.cgroup_id));
                self.set_why(index, None);
            }
            Err(refusal) => {
                self.note_configured(index, |one| one.refused = true);
                let why =
                    format!("the cgroup {path} of the configuration can't be bound, and is not guarded: {refusal}");
                self.set_why(index, Some(why));
            }
        }
    }

    /// Takes note of something about an agent of the configuration.
    fn note_configured(&mut self, index: usize, change: impl FnOnce(&mut Configured)) {
        if let Some(one) = self.configured.get_mut(index) {
            change(one);
        }
    }

    /// Says why what is at the path of one is not guarded, or that it is, and tells of a change.
    fn set_why(&mut self, index: usize, why: Option<String>) {
        let Some(one) = self.configured.get_mut(index).filter(|one| one.why != why) else { return };
        if let Some(why) = &why {
            tracing::error!("{why}");
        }
        one.refused &= why.is_some();
        one.why = why;
        self.refresh();
    }

    /// The id of the cgroup at this path; none where there is none.
    fn look_for(&self, path: &str) -> Result<Option<u64>> {
        match self.node.directory.hierarchy.look_up(path) {
            Ok(cgroup) => Ok(Some(cgroup.id)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look for the cgroup {path} of the configuration")),
        }
    }

    /// An agent whose cgroup was removed and lingers has no path any more: what is there now is another cgroup.
    pub fn lose_paths(&mut self) {
        let directory = self.node.directory.clone();
        let lost = |agent: &Agent| {
            let place = agent.place().filter(|_| agent.origin == Origin::Bound)?;
            let there = directory.hierarchy.look_up(&place.path);
            let elsewhere = there.map_or_else(|error| error.kind() == ErrorKind::NotFound, |now| now.id != place.id);
            elsewhere.then_some(agent.number)
        };
        let lost: Vec<u32> = directory.table().iter().filter_map(lost).collect();
        lost.into_iter().for_each(|number| directory.table_mut().lose_path(number));
    }
}
