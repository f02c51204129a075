//! Taking charge of the node, at start and whenever the policy directory changes: the agents root, the policies' cgroups
//! below it, and what is in them already.

use std::path::{Path, PathBuf};

use agent_monitor_common::binding::EMPTY_SLOT;
use anyhow::{Context, Result};

use super::VERSION;
use super::catalogue::{self, Known, Read};
use super::compiler::Compiler;
use super::node::Wanted;
use super::notify::notify;
use super::policies::Source;
use super::readiness::UNBOUND;
use super::serve::Daemon;
use super::signals::Stop;
use crate::bind::{Cgroup, Origin, shown};

impl Daemon {
    /// Binds everything that must be bound before the daemon is ready. Gives whether it is: not where it is told to stop
    /// while policies are compiled, which can take long.
    pub async fn take_charge(&mut self, stop: &Stop) -> Result<bool> {
        // Nobody else has ended what came to its end while no daemon ran.
        self.expire();
        self.note_expired();
        self.node.flush().await;
        self.note_expired();
        let path = self.config.agents_root.clone();
        let root = self.node.directory.hierarchy.make_or_look_up(&path);
        let root = root.with_context(|| format!("cannot make the agents root {path}"))?;
        // The root first: what is made in it from now on is bound by the kernel.
        let known = self.node.directory.table().by_cgroup(root.id).map(|agent| (agent.number, agent.origin));
        if !matches!(known, Some((_, Origin::Directory))) {
            let wanted = Wanted::new(EMPTY_SLOT, Origin::Directory);
            self.node.bind(&root, Wanted { id: Some("agents-root".to_owned()), ..wanted })?;
        }
        if let Some((number, origin)) = known
            && origin != Origin::Directory
        {
            self.node.leave(number, "exited");
        }
        let (directories, compiler, known) = self.to_read();
        let read = tokio::task::spawn_blocking(move || catalogue::read(&directories, &compiler, &known));
        let read = tokio::select! {
            read = read => read,
            () = stop.asked() => return Ok(false),
        };
        self.apply(read.context("reading the policy directory panicked")?);
        let children = self.node.directory.hierarchy.children(&root);
        for child in children.with_context(|| format!("cannot look for cgroups below the agents root {path}"))? {
            self.adopt(&child, EMPTY_SLOT);
        }
        self.bind_configured().await?;
        if self.node.programs.bindings_lost().context("cannot read what could not be bound")? > 0 {
            self.lasting.insert(UNBOUND.to_owned());
        }
        self.node.write();
        self.check_misses();
        self.started = true;
        self.refresh();
        self.node.write();
        let (version, level) = (VERSION, self.level.name());
        tracing::info!(version, enforcement = level, agents = super::view::agent_count(self), "ready");
        notify("READY=1");
        Ok(true)
    }

    /// Binds a cgroup that is there already and that the kernel should have bound, had we been there.
    fn adopt(&mut self, cgroup: &Cgroup, slot: u32) {
        if self.node.directory.table().by_cgroup(cgroup.id).is_some() {
            return;
        }
        if let Err(error) = self.node.bind(cgroup, Wanted::new(slot, Origin::Below)) {
            self.lasting.insert(format!("cgroup {} is not bound", shown(&cgroup.path)));
            tracing::error!("{error:#}");
        }
    }

    /// What is read when the policies are read again: first what was applied, which keeps its name.
    pub fn to_read(&self) -> (Vec<PathBuf>, Compiler, Known) {
        let directories = vec![self.applied.directory().to_owned(), self.config.policies_dir.clone()];
        let in_them = |path: &str| directories.iter().any(|directory| Path::new(path).starts_with(directory));
        let mut known = Known { unset: self.catalogue.unset(), ..Known::default() };
        for one in self.node.policies.iter() {
            // An image that another daemon made is not taken for what this one would make of the same document.
            if !one.candidate.compiled && one.source != Source::Builtin {
                known.taken.push((one.slot, one.source == Source::Directory, one.candidate.clone()));
            }
            match one.source {
                Source::Directory => known.policies.push(one.candidate.clone()),
                Source::Agent if in_them(&one.candidate.path) => {
                    known.again.push((one.slot, one.candidate.clone()));
                }
                _ => {}
            }
        }
        (directories, self.node.compiler.clone(), known)
    }

    /// Puts in force what was read.
    pub fn apply(&mut self, mut read: Read) {
        self.finish_deleting(&mut read);
        for seconds in self.catalogue.apply(&mut self.node, read) {
            self.metrics.policy_swap_seconds.observe(seconds);
        }
        self.make_directories();
        self.refresh();
    }

    /// For each policy of the directory the cgroup `<agents root>/<policy>`, bound to it; that of a policy that is gone is
    /// bound to `empty`, while the agents in it keep what they have.
    fn make_directories(&mut self) {
        let root = self.config.agents_root.trim_matches('/').to_owned();
        let policies: Vec<(u32, String)> = self
            .node
            .policies
            .iter()
            .filter(|one| one.source == Source::Directory)
            .map(|one| (one.slot, one.name().to_owned()))
            .collect();
        for (slot, name) in policies {
            if let Err(error) = self.make_directory(&format!("{root}/{name}"), slot) {
                self.lasting.insert(format!("the cgroup of policy {name} is not bound"));
                tracing::error!("policy {name}: {error:#}");
            }
        }
        self.clear_directories();
    }

    /// Binds the cgroups of policies that are gone to `empty`, and unloads those policies that no agent has.
    fn clear_directories(&mut self) {
        let removed: Vec<u32> =
            self.node.policies.iter().filter(|one| one.source == Source::Removed).map(|one| one.slot).collect();
        for slot in removed {
            let directories: Vec<u32> = {
                let table = self.node.directory.table();
                let here = table.iter().filter(|agent| agent.slot == slot && agent.origin == Origin::Directory);
                here.map(|agent| agent.number).collect()
            };
            for number in directories {
                if let Err(error) = self.node.rebind(number, EMPTY_SLOT) {
                    tracing::error!("{error:#}");
                }
            }
            let unused = self.node.directory.table().count(slot) == 0;
            if unused && let Err(error) = self.node.unload(slot) {
                tracing::error!("{error:#}");
            }
        }
    }

    fn make_directory(&mut self, path: &str, slot: u32) -> Result<()> {
        let cgroup = self.node.directory.hierarchy.make_or_look_up(path);
        let cgroup = cgroup.with_context(|| format!("cannot make the cgroup {path}"))?;
        let known =
            self.node.directory.table().by_cgroup(cgroup.id).map(|agent| (agent.number, agent.slot, agent.origin));
        match known {
            Some((_, bound, Origin::Directory)) if bound == slot => return Ok(()),
            Some((number, _, Origin::Directory)) => return self.node.rebind(number, slot),
            _ => {}
        }
        self.node.bind(&cgroup, Wanted::new(slot, Origin::Directory))?;
        // The kernel announced it: it was made in the agents root. It is a directory now, and no agent any more.
        if let Some((number, _, _)) = known {
            self.node.leave(number, "exited");
        }
        for child in self.node.directory.hierarchy.children(&cgroup)? {
            self.adopt(&child, slot);
        }
        Ok(())
    }
}
