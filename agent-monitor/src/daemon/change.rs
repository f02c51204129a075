//! Policies that are applied and deleted over the control socket. A change is made in the directory of the applied policies
//! by whoever reads the directories next, one after the other, so that no reading misses one; then it is put in force as any
//! change of a file is. One that is refused, or that can't be put in force, changes nothing and is told.

use std::collections::BTreeSet;

use agent_monitor_common::binding::EMPTY_SLOT;
use agent_monitor_common::limit::PATH_BYTES;
use agent_monitor_policy::Document;

use super::applied::Applied;
use super::catalogue::{self, Compiled, Known, Read};
use super::compiler::Compiler;
use super::policies::{Instance, Source};
use super::serve::{Background, Daemon};
use super::view;
use crate::control::Answer;
use crate::control::api::{self, ChangedPolicy, Refusal};
use crate::record::PolicyRef;

/// Most changes that wait for those before them. Each holds a document of at most [`Document::BYTES`].
const WAITING: usize = 16;

/// A change that was asked for.
#[derive(Clone, Debug)]
pub enum Change {
    /// A document that shall be in force.
    Apply(String, api::ApplyPolicy),
    /// A name whose policy shall be no more.
    Delete(String),
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Self::Apply(name, _) | Self::Delete(name) => name,
        }
    }
}

/// A change that waits, and who waits for it.
pub struct Waiting {
    change: Change,
    answer: Answer<ChangedPolicy>,
}

/// A change that was made in the directory, or why it was not, and what was in force before.
pub struct Made {
    waiting: Waiting,
    generation: Option<u64>,
    document: Option<Document>,
    result: Result<Written, Refused>,
}

/// What was written.
struct Written {
    path: std::path::PathBuf,
    /// What the file held before.
    before: Option<Vec<u8>>,
}

/// Why a change is refused: for who asked, and for the record.
struct Refused {
    refusal: Refusal,
    messages: Vec<String>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { messages: vec![refusal.to_string()], refusal }
    }
}

impl Daemon {
    /// Takes a change; it is answered once it is in force or refused.
    pub fn change_policy(&mut self, change: Change, answer: Answer<ChangedPolicy>) {
        if self.changes.len() >= WAITING {
            let message = format!("{WAITING} changes of policies wait already; try again later");
            drop(answer.send(Err(Refusal::TooMany(message))));
            return;
        }
        self.changes.push_back(Waiting { change, answer });
        self.read_next();
    }

    /// Reads the policies again elsewhere; [`Self::take_read`] goes on with it. A change meanwhile is read after.
    pub fn reload(&mut self) {
        self.read_again = true;
        self.read_next();
    }

    /// Makes the next change and reads, unless that is being done.
    fn read_next(&mut self) {
        if self.reading || (self.changes.is_empty() && !self.read_again) {
            return;
        }
        self.reading = true;
        self.read_again = false;
        let next = self.changes.pop_front().map(|waiting| {
            let name = waiting.change.name();
            let generation = self.node.policies.named(name).map(|one| one.generation);
            let document = self.catalogue.document(name).cloned();
            let allowed = self.may_change(name);
            (waiting, generation, document, allowed)
        });
        let (directories, compiler, mut known) = self.to_read();
        let (applied, background) = (self.applied.clone(), self.background.clone());
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || {
                let made = next.map(|(waiting, generation, document, allowed)| {
                    let allowed = allowed.map_err(Refused::from);
                    let result = allowed.and_then(|()| carry_out(&applied, &compiler, &waiting.change, &mut known));
                    Made { waiting, generation, document, result }
                });
                (catalogue::read(&directories, &compiler, &known), made)
            })
            .await;
            let _ = background.send(Background::Read(read.map(Box::new).map_err(|error| error.to_string()))).await;
        });
    }

    /// Puts in force what was read, and answers who asked for the change that was made before.
    pub fn take_read(&mut self, read: Result<Box<(Read, Option<Made>)>, String>) {
        self.reading = false;
        match read.map(|read| *read) {
            Ok((read, None)) => self.apply(read),
            Ok((read, Some(made))) => self.take_change(read, made),
            Err(error) => tracing::error!(error, "reading the policies panicked; what was in force stays"),
        }
        self.read_next();
    }

    /// Only what was applied can be changed so, and a new name can be taken.
    fn may_change(&self, name: &str) -> Result<(), Refusal> {
        if self.node.policies.named(name).is_some_and(|one| one.source == Source::Builtin) {
            return Err(Refusal::Conflict(format!("the policy {name} is built in; use another name")));
        }
        match self.catalogue.document(name) {
            Some(document) if !self.applied.holds(&document.path) => {
                let path = &document.path;
                Err(Refusal::Conflict(format!("the policy {name} is the file {path}: change or remove that file")))
            }
            _ => Ok(()),
        }
    }

    fn take_change(&mut self, mut read: Read, made: Made) {
        let Made { waiting: Waiting { change, answer }, generation, document, result } = made;
        let before = Before { generation, document };
        let answered = match (result, change) {
            (Ok(written), Change::Apply(name, applied)) => {
                self.apply(read);
                self.finish_applying(&name, &applied, &written, &before)
            }
            (Ok(written), Change::Delete(name)) => {
                let path = written.path.display().to_string();
                let emptied = self.empty_agents(&path);
                read.deleted.insert(path, name.clone());
                self.apply(read);
                let policy = api::Policy { name, state: "removed".to_owned(), ..api::Policy::default() };
                Ok(ChangedPolicy { change: "removed".to_owned(), agents_emptied: emptied, policy })
            }
            (Err(refused), change) => {
                self.apply(read);
                if let Change::Apply(name, applied) = change {
                    tracing::error!("policy {name} refused:\n{}", refused.messages.join("\n"));
                    self.node.tell_refused(&name, &applied.path, &refused.messages);
                }
                Err(refused.refusal)
            }
        };
        drop(answer.send(answered));
    }

    fn finish_applying(
        &mut self,
        name: &str,
        applied: &api::ApplyPolicy,
        written: &Written,
        before: &Before,
    ) -> Result<ChangedPolicy, Refusal> {
        let path = written.path.display().to_string();
        let is_this = |known: &str, text: &str| known == path && text == applied.text;
        let waits = self.catalogue.needs_values(name);
        let loaded = self.node.policies.named(name);
        let holds = loaded.is_some_and(|one| is_this(&one.candidate.path, &one.candidate.text));
        let is_known = self.catalogue.document(name).is_some_and(|document| is_this(&document.path, &document.text));
        if !(is_known && (holds || waits)) {
            // The reason is recorded: see `Catalogue::apply`.
            let mut messages = self.catalogue.why_not(name, &path);
            if let Err(error) = self.applied.set(&written.path, written.before.as_deref()) {
                messages.push(format!("cannot write back {path}: {error}; a later daemon may take what was refused"));
                self.lasting.insert(format!("the policy {name} is refused, and its file {path} can't be written back"));
            }
            self.reload();
            return Err(Refusal::Failed(format!("the policy {name} can't be put in force: {}", messages.join("; "))));
        }
        let is_same = before.document.as_ref().is_some_and(|known| is_this(&known.path, &known.text));
        let change = match before.document {
            None => "loaded",
            Some(_) if is_same || (!waits && before.generation == loaded.map(|one| one.generation)) => "unchanged",
            Some(_) => "replaced",
        };
        if waits && change != "unchanged" {
            // It has no slot, so nobody else tells of it.
            let policy = PolicyRef { name: name.to_owned(), ..PolicyRef::default() };
            self.node.tell_policy(change, policy, Some(path), vec![catalogue::NEEDS_VALUES.to_owned()]);
        }
        let policy = view::policy_named(self, name)
            .ok_or_else(|| Refusal::Failed(format!("the policy {name} is gone already")))?;
        let policy = api::Policy { document: None, ..policy };
        Ok(ChangedPolicy { change: change.to_owned(), agents_emptied: 0, policy })
    }

    /// Goes on with the deleting of applied policies whose files are gone and that somebody has: nobody else removes such a file,
    /// and a daemon that ended after it had done so left the rest undone.
    pub fn finish_deleting(&mut self, read: &mut Read) {
        let is_there = |one: &&Instance| one.source == Source::Directory || self.has_agents(one.slot);
        let there = self.node.policies.iter().filter(is_there);
        let left = there.filter(|one| self.applied.has_lost(&one.candidate.path));
        let left: Vec<_> = left.map(|one| (one.candidate.path.clone(), one.name().to_owned())).collect();
        for (path, name) in left {
            self.empty_agents(&path);
            read.deleted.insert(path, name);
        }
    }

    /// Whether somebody has the policy in a slot who is not about to go.
    fn has_agents(&self, slot: u32) -> bool {
        let table = self.node.directory.table();
        table.iter().any(|agent| agent.slot == slot && !self.node.is_leaving(agent.number))
    }

    /// Binds whoever has a policy of this document to `empty`: it may do nothing from now on. Says how many agents did.
    fn empty_agents(&mut self, path: &str) -> u64 {
        let of_document = |one: &&Instance| one.candidate.path == path;
        let slots: BTreeSet<u32> = self.node.policies.iter().filter(of_document).map(|one| one.slot).collect();
        let bound: Vec<_> = {
            let table = self.node.directory.table();
            table.iter().filter(|agent| slots.contains(&agent.slot)).cloned().collect()
        };
        let mut emptied = 0;
        for agent in bound {
            if self.node.is_leaving(agent.number) {
                continue;
            }
            emptied += u64::from(agent.origin.is_agent());
            if let Err(error) = self.node.rebind(agent.number, EMPTY_SLOT) {
                let id = &agent.identity.id;
                tracing::error!("{error:#}");
                self.lasting.insert(format!("agent {id} could not be bound to empty when its policy was deleted"));
            }
        }
        slots.into_iter().for_each(|slot| self.node.drop_unused(slot));
        emptied
    }
}

/// What a name stood for before a change.
struct Before {
    generation: Option<u64>,
    document: Option<Document>,
}

/// Makes a change in the directory. What was compiled for it is known then.
fn carry_out(applied: &Applied, compiler: &Compiler, change: &Change, known: &mut Known) -> Result<Written, Refused> {
    let name = change.name();
    let path = applied.path(name).map_err(Refusal::Invalid)?;
    let failed = |error: std::io::Error| Refusal::Failed(format!("cannot change {}: {error}", path.display()));
    let before = applied.read(&path).map_err(failed)?;
    match change {
        Change::Apply(_, body) => {
            check(name, &path.display().to_string(), body, compiler, known)?;
            applied.set(&path, Some(body.text.as_bytes())).map_err(failed)?;
        }
        Change::Delete(_) if before.is_none() => {
            let message = format!("there is no policy {name} that was applied; see agent-monitor status");
            return Err(Refusal::NotFound(message).into());
        }
        Change::Delete(_) => applied.set(&path, None).map_err(failed)?,
    }
    Ok(Written { path, before })
}

/// Compiles a document as the file that it is to be.
fn check(
    name: &str,
    path: &str,
    body: &api::ApplyPolicy,
    compiler: &Compiler,
    known: &mut Known,
) -> Result<(), Refused> {
    if body.path.len() > PATH_BYTES || body.path.chars().any(char::is_control) {
        let message = format!("path {:?} is longer than {PATH_BYTES} bytes or has control characters", body.path);
        return Err(Refusal::Invalid(message).into());
    }
    // Messages name the document as who sent it does.
    let shown = |text: String| text.replace(path, &body.path);
    let document = Document { path: path.to_owned(), text: body.text.clone() };
    let (found, compiled) = catalogue::compile_document(document, compiler).map_err(|errors| Refused {
        refusal: Refusal::Invalid(shown(format!("the policy {name} is refused:\n{errors}"))),
        messages: catalogue::messages(&errors).into_iter().map(shown).collect(),
    })?;
    if found != name {
        let message = format!("{}: the document's name is {found}, and {name} was asked for", body.path);
        return Err(Refusal::Invalid(message).into());
    }
    // Not compiled again when it is read as a file.
    match compiled {
        Compiled::Policy(candidate) => known.policies.push(candidate),
        Compiled::NeedsValues(unset) => known.unset.push(unset),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
