//! The policy directory, and that of the applied policies, as they were read last: which file gave which policy, which were
//! refused, and which wait for values of their variables. Both are called the directory here.

mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use agent_monitor_policy::Document;

pub use read::{Compiled, Known, Read, Unset, compile_document, messages, read};

use super::node::Node;
use super::policies::{Candidate, Policies, Source};
use crate::control::api;
use crate::record::PolicyRef;
use read::Compilation;

/// What is said of a policy that can't be bound without values.
pub const NEEDS_VALUES: &str = "needs values for its variables; it is compiled for each agent that gives them";

/// What is known of the directory beside the policies that are loaded.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Files that were refused, with their errors.
    refused: BTreeMap<String, Vec<String>>,
    /// Documents of the directory by the name of their policy; also of those that can't be bound without values.
    documents: BTreeMap<String, Document>,
    /// Those that can't be bound without values, by the names of their policies.
    unset: BTreeMap<String, Unset>,
    /// Policies that are not in force as they should be, though no file was refused for it.
    failures: Vec<Failure>,
}

impl Catalogue {
    /// Puts what was read in force: new and changed policies are loaded, those that are gone are marked so and stay for
    /// the agents that have them until their files are back. What was refused changes nothing. Gives the seconds that each swap took.
    pub fn apply(&mut self, node: &mut Node, mut read: Read) -> Vec<f64> {
        let mut swaps = Swaps { began: read.began.unwrap_or_else(Instant::now), seconds: Vec::new() };
        for (path, name) in std::mem::take(&mut read.deleted) {
            self.delete(node, &name, path);
        }
        // At start: a file that is refused stands for the policy that it gave to an earlier daemon, too.
        for one in node.policies.iter().filter(|one| one.source == Source::Directory) {
            self.documents.entry(one.name().to_owned()).or_insert_with(|| document_of(&one.candidate));
        }
        let mut refused: BTreeMap<String, Vec<String>> = std::mem::take(&mut read.refused).into_iter().collect();
        refuse_builtin(&node.policies, &mut read, &mut refused);
        self.tell_refusals(node, &refused);
        let mut failures = Vec::new();
        replace_again(node, read.again, read.taken, &mut swaps, &mut failures);
        if read.unreadable {
            failures.extend(self.failures.iter().filter(|one| one.slot.is_none()).cloned());
        } else {
            let here = put_in_force(node, read.policies, &mut swaps, &mut failures);
            self.take_documents(node, here, read.unset, &refused);
        }
        self.refused = refused;
        self.take_failures(node, failures);
        swaps.seconds
    }

    /// Tells of files that are refused for another reason than before, or were not.
    fn tell_refusals(&self, node: &mut Node, refused: &BTreeMap<String, Vec<String>>) {
        for (path, messages) in refused {
            if self.refused.get(path) != Some(messages) {
                tracing::error!("policy file refused, what was in force stays:\n{}", messages.join("\n"));
                let name = self.name_of_file(path).unwrap_or_else(|| path.clone());
                node.tell_refused(&name, path, messages);
            }
        }
    }

    /// Takes the documents that are in the directory now for those that were: of the policies that were put in force, and
    /// those that wait for values.
    fn take_documents(
        &mut self,
        node: &mut Node,
        mut here: BTreeMap<String, Document>,
        unset: Vec<Unset>,
        refused: &BTreeMap<String, Vec<String>>,
    ) {
        here.extend(unset.iter().map(|one| (one.name.clone(), one.document.clone())));
        self.unset = unset.into_iter().map(|one| (one.name.clone(), one)).collect();
        // A file that is refused now still stands for the policy that it gave before.
        for name in refused.keys().filter_map(|path| self.name_of_file(path)) {
            if let Some(document) = self.documents.get(&name) {
                here.entry(name).or_insert_with(|| document.clone());
            }
        }
        self.remove(node, &here);
        self.documents = here;
    }

    /// Marks the policies of the directory that it does not give any more.
    fn remove(&self, node: &mut Node, here: &BTreeMap<String, Document>) {
        let of_directory = node.policies.iter().filter(|one| one.source == Source::Directory);
        let gone = of_directory.filter_map(|one| {
            let why = match here.contains_key(one.name()) {
                // It is compiled for each agent that gives values, and nobody else is to have what it said before.
                true if self.unset.contains_key(one.name()) => "it needs values for its variables now",
                true => return None,
                false => "its file is gone",
            };
            Some((one.slot, one.candidate.path.clone(), why))
        });
        for (slot, path, why) in gone.collect::<Vec<_>>() {
            let message = format!("{why}; agents that have it keep it");
            let policy = node.directory.policy(slot);
            tracing::info!(policy = policy.name, "policy removed: {message}");
            node.set_source(slot, Source::Removed);
            node.tell_policy("removed", policy, Some(path), vec![message]);
        }
    }

    /// Marks an applied policy that was deleted. Nobody has it any more, and nobody gets it.
    fn delete(&mut self, node: &mut Node, name: &str, path: String) {
        self.documents.retain(|_, document| document.path != path);
        self.unset.retain(|_, one| one.document.path != path);
        let slot = node.policies.named(name).filter(|one| one.candidate.path == path).map(|one| one.slot);
        let policy = slot.map(|slot| node.directory.policy(slot));
        let policy = policy.unwrap_or_else(|| PolicyRef { name: name.to_owned(), ..PolicyRef::default() });
        if let Some(slot) = slot {
            node.set_source(slot, Source::Removed);
        }
        let message = "it was deleted over the control socket; agents that had it are bound to empty";
        tracing::info!(policy = name, "policy removed: {message}");
        node.tell_policy("removed", policy, Some(path), vec![message.to_owned()]);
    }

    /// Why the policy of a name, or what its file holds, is not in force.
    pub fn why_not(&self, name: &str, path: &str) -> Vec<String> {
        let failures =
            self.failures.iter().filter(|failure| failure.name == name).flat_map(|failure| &failure.messages);
        let refused = self.refused.get(path).into_iter().flatten();
        let mut why: Vec<String> = failures.chain(refused).cloned().collect();
        if why.is_empty() {
            // A directory that can't be read, or another file that has the name.
            why.extend(self.refused.values().flatten().cloned());
        }
        why
    }

    /// Tells of failures that are new.
    fn take_failures(&mut self, node: &mut Node, failures: Vec<Failure>) {
        for failure in failures.iter().filter(|failure| !self.failures.contains(failure)) {
            let Failure { name, source, messages, .. } = failure;
            tracing::error!("policy {name} is not in force as it should be:\n{}", messages.join("\n"));
            node.tell_refused(name, source, messages);
        }
        self.failures = failures;
    }

    /// Why more may pass than the policies say.
    pub fn reasons(&self, policies: &Policies) -> Vec<String> {
        let failures = self.failures.iter().filter(|failure| failure.unready && failure.holds(policies));
        failures.map(|failure| format!("policy {}: {}", failure.name, failure.messages.join("; "))).collect()
    }

    /// The document that a policy of the directory was made of.
    pub fn document(&self, name: &str) -> Option<&Document> {
        self.documents.get(name)
    }

    /// What can't be bound without values.
    pub fn unset(&self) -> Vec<Unset> {
        self.unset.values().cloned().collect()
    }

    /// Whether a policy of the directory can't be bound without values.
    pub fn needs_values(&self, name: &str) -> bool {
        self.unset.contains_key(name)
    }

    fn name_of_file(&self, path: &str) -> Option<String> {
        self.documents.iter().find(|(_, document)| document.path == path).map(|(name, _)| name.clone())
    }

    /// What is in the directory and not loaded, as the control socket shows it.
    pub fn others(&self, policies: &Policies) -> Vec<api::Policy> {
        let refused = self.refused.iter().map(|(path, messages)| api::Policy {
            name: self.name_of_file(path).unwrap_or_else(|| path.clone()),
            state: "refused".to_owned(),
            source: Some(path.clone()),
            messages: messages.clone(),
            ..api::Policy::default()
        });
        let unset = self.unset.values().map(|one| api::Policy {
            name: one.name.clone(),
            state: "loaded".to_owned(),
            source: Some(one.document.path.clone()),
            messages: vec![NEEDS_VALUES.to_owned()],
            ..api::Policy::default()
        });
        let failed = self.failures.iter().filter(|failure| failure.holds(policies)).map(|failure| api::Policy {
            name: failure.name.clone(),
            state: "refused".to_owned(),
            source: Some(failure.source.clone()),
            messages: failure.messages.clone(),
            ..api::Policy::default()
        });
        refused.chain(failed).chain(unset).collect()
    }
}

/// A policy that is not in force as it should be: what was in force before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    name: String,
    /// The slot that has what was in force before.
    slot: Option<u32>,
    /// Where its document comes from.
    source: String,
    messages: Vec<String>,
    /// More may pass than its document, or the monitor's own paths, would have.
    unready: bool,
}

impl Failure {
    /// Whether the slot has the policy still.
    fn holds(&self, policies: &Policies) -> bool {
        self.slot.is_none_or(|slot| policies.get(slot).is_some_and(|one| one.name() == self.name))
    }
}

/// How long swaps took, from the moment that the directory was read.
struct Swaps {
    began: Instant,
    seconds: Vec<f64>,
}

impl Swaps {
    fn note(&mut self) {
        self.seconds.push(self.began.elapsed().as_secs_f64());
    }

    /// Replaces the policy in a slot, unless it means the same.
    fn put(&mut self, node: &mut Node, slot: u32, source: Source, candidate: Arc<Candidate>) -> anyhow::Result<()> {
        if node.policies.unchanged(slot, &candidate) {
            node.renew(slot, candidate);
            return Ok(());
        }
        node.put(slot, source, candidate).map(|()| self.note())
    }
}

/// Refuses files whose policy has the name of one that is built in.
fn refuse_builtin(policies: &Policies, read: &mut Read, refused: &mut BTreeMap<String, Vec<String>>) {
    let mut refuse = |name: &str, path: &str| {
        let builtin = policies.named(name).is_some_and(|one| one.source == Source::Builtin);
        if builtin {
            let message = format!("{path}: the name {name} is a built-in policy's; use another");
            refused.insert(path.to_owned(), vec![message]);
        }
        !builtin
    };
    read.policies.retain(|one| refuse(&one.name, &one.path));
    read.unset.retain(|one| refuse(&one.name, &one.document.path));
}

/// Loads the policies of files, or replaces them, and gives the documents of all of them by name.
fn put_in_force(
    node: &mut Node,
    policies: Vec<Arc<Candidate>>,
    swaps: &mut Swaps,
    failures: &mut Vec<Failure>,
) -> BTreeMap<String, Document> {
    let mut here = BTreeMap::new();
    for candidate in policies {
        let (name, source) = (candidate.name.clone(), candidate.path.clone());
        here.insert(name.clone(), document_of(&candidate));
        let known = node.policies.named(&name).or_else(|| node.policies.removed(&name));
        let (slot, is_back) = known.map(|one| (one.slot, one.source == Source::Removed)).unzip();
        let done = match slot {
            Some(slot) if is_back == Some(true) => put_back(node, slot, candidate, swaps),
            Some(slot) => swaps.put(node, slot, Source::Directory, candidate),
            None => node.load(Source::Directory, candidate).map(|_| swaps.note()),
        };
        if let Err(error) = done {
            failures.push(Failure { name, slot, source, messages: vec![not_put(&error)], unready: true });
        }
    }
    here
}

/// Puts a policy whose file was gone into the slot that it had, so that the agents that kept it get what the file says now.
fn put_back(node: &mut Node, slot: u32, candidate: Arc<Candidate>, swaps: &mut Swaps) -> anyhow::Result<()> {
    let is_same = node.policies.unchanged(slot, &candidate);
    let path = candidate.path.clone();
    swaps.put(node, slot, Source::Directory, candidate)?;
    if is_same {
        // Nothing was replaced, so nobody else tells that it is there again.
        node.set_source(slot, Source::Directory);
        node.tell_policy("loaded", node.directory.policy(slot), Some(path), vec![BACK.to_owned()]);
    }
    Ok(())
}

/// What is said of a policy whose file is there again, as it was.
const BACK: &str = "its file is there again; agents that kept it have it";

/// Replaces policies that no file gives by itself: those of agents with values of their own, and those that were taken over.
fn replace_again(
    node: &mut Node,
    again: Vec<(u32, Compilation)>,
    taken: Vec<(u32, Compilation)>,
    swaps: &mut Swaps,
    failures: &mut Vec<Failure>,
) {
    let again = again.into_iter().map(|one| (false, one));
    for (is_taken, (slot, compiled)) in again.chain(taken.into_iter().map(|one| (true, one))) {
        let Some(one) = node.policies.get(slot) else { continue };
        let (name, path, source) = (one.name().to_owned(), one.candidate.path.clone(), one.source.clone());
        let (messages, unready) = match compiled {
            Ok(candidate) => match swaps.put(node, slot, source, candidate) {
                Ok(()) => continue,
                Err(error) => (vec![not_put(&error)], true),
            },
            Err(mut messages) => {
                messages.extend(is_taken.then(|| STALE.to_owned()));
                (messages, is_taken)
            }
        };
        failures.push(Failure { name, slot: Some(slot), source: path, messages, unready });
    }
}

/// What it means that a policy that was taken over can't be compiled.
const STALE: &str = "it was taken over and can't be compiled again: what an earlier daemon made of it stays in force, which may \
                     not deny all that is the monitor's own now; end the agents that have it";

fn not_put(error: &anyhow::Error) -> String {
    format!("{error:#}; what was in force stays, and it is tried again when the policy directory changes and at SIGHUP")
}

fn document_of(candidate: &Candidate) -> Document {
    Document { path: candidate.path.clone(), text: candidate.text.clone() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::read::tests::compiled;
    use super::*;
    use crate::daemon::compiler::tests::compiler;

    #[test]
    fn a_policy_that_is_not_in_force_is_shown_and_a_reason_as_long_as_its_slot_is_its_own() {
        let compiler = compiler(Path::new("/does/not/exist"), "/run/x");
        let failure = |name: &str, slot, unready| Failure {
            name: name.to_owned(),
            slot,
            source: format!("/p/{name}.yaml"),
            messages: vec![not_put(&anyhow::anyhow!("all slots for policies are taken"))],
            unready,
        };
        let failures =
            vec![failure("new", None, true), failure("old", Some(3), true), failure("given", Some(4), false)];
        let catalogue = Catalogue { failures, ..Catalogue::default() };
        let mut policies = Policies::default();
        for (slot, name) in [(3, "old"), (4, "given")] {
            policies.put(slot, 1, Source::Agent, compiled(&compiler, name, name));
        }
        let shown = |policies: &Policies| {
            let others = catalogue.others(policies);
            assert!(others.iter().all(|one| one.state == "refused" && one.messages.len() == 1));
            others.into_iter().map(|one| one.name).collect::<Vec<_>>()
        };
        let reasons = catalogue.reasons(&policies);
        assert!(
            matches!(reasons.as_slice(), [new, old] if new.starts_with("policy new: all slots") && old.starts_with("policy old: ")),
            "{reasons:?}"
        );
        assert_eq!(shown(&policies), ["new", "old", "given"]);
        policies.put(3, 1, Source::Agent, compiled(&compiler, "other", "other"));
        assert_eq!(
            (catalogue.reasons(&policies).len(), shown(&policies)),
            (1, vec!["new".to_owned(), "given".to_owned()])
        );
    }
}
