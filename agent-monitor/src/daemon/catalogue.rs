//! The policy directory as it was read last: which file gave which policy, which were refused, and which wait for values
//! of their variables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agent_monitor_policy::{Diagnostics, Document, Options, compile};

use super::library::{Compiler, policy_files, read_document};
use super::node::Node;
use super::policies::{Candidate, Source};
use crate::control::api;
use crate::record::PolicyRef;

/// What is known of the directory beside the policies that are loaded.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Files that were refused, with their errors.
    refused: BTreeMap<String, Vec<String>>,
    /// Documents of the directory by the name of their policy; also of those that can't be bound without values.
    documents: BTreeMap<String, Document>,
    /// Names of those that can't be bound without values.
    waiting: BTreeSet<String>,
}

/// A policy, or all that is wrong in it.
type Compilation = Result<Arc<Candidate>, Vec<String>>;

/// What reading the directory gave.
#[derive(Debug, Default)]
pub struct Read {
    policies: Vec<Arc<Candidate>>,
    /// Documents that need values; the name of the policy with each.
    waiting: Vec<(String, Document)>,
    refused: Vec<(String, Vec<String>)>,
    /// The policies of agents with values of their own, by slot.
    again: Vec<(u32, Compilation)>,
    began: Option<Instant>,
}

/// What is loaded from the directory when it is read again: nothing that has not changed is compiled again.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The policies of its files.
    pub policies: Vec<Arc<Candidate>>,
    /// The policies of agents with values of their own, by slot.
    pub again: Vec<(u32, Arc<Candidate>)>,
}

/// Reads and compiles the whole directory. Blocks the thread.
pub fn read(directory: &Path, compiler: &Compiler, known: &Known) -> Read {
    let mut read = Read { began: Some(Instant::now()), ..Read::default() };
    let files = match policy_files(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            // Nothing is known about the files, so nothing is taken for removed: see `apply`.
            read.refused.push((directory.display().to_string(), vec![format!("cannot read the directory: {error}")]));
            return read;
        }
    };
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files {
        let shown = file.display().to_string();
        match compile_one(&file, compiler, known) {
            // Removed after the directory was listed: that is told as a change of its own.
            Err(_) if !file.exists() => {}
            Err(errors) => read.refused.push((shown, messages(&errors))),
            Ok((name, compiled)) => {
                if let Some(first) = names.get(&name) {
                    let first = first.display();
                    let message =
                        format!("{shown}: a policy {name} is already in {first}; give one of them another name");
                    read.refused.push((shown, vec![message]));
                    continue;
                }
                names.insert(name.clone(), file);
                match compiled {
                    Compiled::Policy(policy) => read.policies.push(policy),
                    Compiled::NeedsValues(document) => read.waiting.push((name, document)),
                }
            }
        }
    }
    for (slot, candidate) in &known.again {
        let compiled = read_document(Path::new(&candidate.path)).and_then(|document| {
            if compiler.is_current(candidate, &document) {
                return Ok(candidate.clone());
            }
            compiler.compile(document, &compiler.files, &candidate.variables).map(Arc::new)
        });
        read.again.push((*slot, compiled.map_err(|errors| messages(&errors))));
    }
    read
}

enum Compiled {
    Policy(Arc<Candidate>),
    NeedsValues(Document),
}

fn compile_one(file: &Path, compiler: &Compiler, known: &Known) -> Result<(String, Compiled), Diagnostics> {
    let document = read_document(file)?;
    if let Some(current) = known.policies.iter().find(|one| compiler.is_current(one, &document)) {
        return Ok((current.name.clone(), Compiled::Policy(current.clone())));
    }
    match compiler.compile(document.clone(), &compiler.files, &BTreeMap::new()) {
        Ok(candidate) => Ok((candidate.name.clone(), Compiled::Policy(Arc::new(candidate)))),
        Err(errors) => {
            let options = Options { allow_unset: true, ..Options::default() };
            let unset = compile(document.clone(), &compiler.files, &options).map_err(|_| errors)?;
            Ok((unset.policy.name().to_owned(), Compiled::NeedsValues(document)))
        }
    }
}

fn messages(errors: &Diagnostics) -> Vec<String> {
    errors.iter().map(|error| error.to_string().trim_end().to_owned()).collect()
}

impl Catalogue {
    /// Puts what was read in force: new and changed policies are loaded, those that are gone are marked so and stay for
    /// the agents that have them. What was refused changes nothing. Gives the seconds that each swap took.
    pub fn apply(&mut self, node: &mut Node, directory: &Path, read: Read) -> Vec<f64> {
        let began = read.began.unwrap_or_else(Instant::now);
        let mut swaps = Vec::new();
        let unreadable = read.refused.iter().any(|(path, _)| Path::new(path) == directory);
        let refused: BTreeMap<String, Vec<String>> = read.refused.into_iter().collect();
        for (path, messages) in &refused {
            if self.refused.get(path) != Some(messages) {
                tracing::error!("policy file refused, what was in force stays:\n{}", messages.join("\n"));
                let name = self.name_of_file(path).unwrap_or_else(|| path.clone());
                let policy = node.policies.named(&name).map(|one| node.directory.policy(one.slot));
                let policy = policy.unwrap_or_else(|| PolicyRef { name, ..PolicyRef::default() });
                node.tell_policy("refused", policy, Some(path.clone()), messages.clone());
            }
        }
        if unreadable {
            self.refused = refused;
            return swaps;
        }
        let mut here = BTreeMap::new();
        self.waiting.clear();
        for (name, document) in read.waiting {
            self.waiting.insert(name.clone());
            here.insert(name, document);
        }
        for candidate in read.policies {
            let name = candidate.name.clone();
            here.insert(name.clone(), Document { path: candidate.path.clone(), text: candidate.text.clone() });
            let known = node.policies.named(&name).map(|one| (one.slot, one.source.clone()));
            let done = match known {
                Some((_, Source::Builtin)) => {
                    Err(anyhow::anyhow!("the name {name} is a built-in policy's; use another"))
                }
                Some((slot, _)) if node.policies.unchanged(slot, &candidate) => {
                    node.renew(slot, candidate);
                    continue;
                }
                Some((slot, _)) => node.put(slot, Source::Directory, candidate),
                None => node.load(Source::Directory, candidate).map(drop),
            };
            match done {
                Ok(()) => swaps.push(began.elapsed().as_secs_f64()),
                Err(error) => tracing::error!("policy {name}: {error:#}"),
            }
        }
        for (slot, compiled) in read.again {
            let Some(source) = node.policies.get(slot).map(|one| one.source.clone()) else { continue };
            match compiled {
                Ok(candidate) if node.policies.unchanged(slot, &candidate) => node.renew(slot, candidate),
                Ok(candidate) => match node.put(slot, source, candidate) {
                    Ok(()) => swaps.push(began.elapsed().as_secs_f64()),
                    Err(error) => tracing::error!("{error:#}"),
                },
                Err(messages) => {
                    let policy = node.directory.policy(slot);
                    node.tell_policy("refused", policy, None, messages);
                }
            }
        }
        // A file that is refused now still stands for the policy that it gave before.
        for name in refused.keys().filter_map(|path| self.name_of_file(path)) {
            if let Some(document) = self.documents.get(&name) {
                here.entry(name).or_insert_with(|| document.clone());
            }
        }
        let gone: Vec<(u32, String)> = node
            .policies
            .iter()
            .filter(|one| one.source == Source::Directory && !here.contains_key(one.name()))
            .map(|one| (one.slot, one.name().to_owned()))
            .collect();
        for (slot, name) in gone {
            node.set_source(slot, Source::Removed);
            tracing::info!(policy = name, "policy removed; agents that have it keep it");
        }
        self.refused = refused;
        self.documents = here;
        swaps
    }

    /// The document that a policy of the directory was made of.
    pub fn document(&self, name: &str) -> Option<&Document> {
        self.documents.get(name)
    }

    /// Whether a policy of the directory can't be bound without values.
    pub fn needs_values(&self, name: &str) -> bool {
        self.waiting.contains(name)
    }

    fn name_of_file(&self, path: &str) -> Option<String> {
        self.documents.iter().find(|(_, document)| document.path == path).map(|(name, _)| name.clone())
    }

    /// What is in the directory and not loaded, as the control socket shows it.
    pub fn others(&self) -> Vec<api::Policy> {
        let refused = self.refused.iter().map(|(path, messages)| api::Policy {
            name: self.name_of_file(path).unwrap_or_else(|| path.clone()),
            state: "refused".to_owned(),
            source: Some(path.clone()),
            messages: messages.clone(),
            ..api::Policy::default()
        });
        let waiting = self.waiting.iter().map(|name| api::Policy {
            name: name.clone(),
            state: "loaded".to_owned(),
            source: self.documents.get(name).map(|document| document.path.clone()),
            messages: vec!["needs values for its variables; it is compiled for each agent that gives them".to_owned()],
            ..api::Policy::default()
        });
        refused.chain(waiting).collect()
    }
}
