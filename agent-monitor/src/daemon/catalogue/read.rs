//! Reading and compiling the policy directory, and what was taken over from an earlier daemon. Knows no node: it runs beside
//! it, and takes its time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agent_monitor_policy::{Diagnostics, Document};

use crate::daemon::compiler::{Compiler, Included};
use crate::daemon::library::{policy_files, read_document};
use crate::daemon::policies::Candidate;

/// A policy, or all that is wrong in it.
pub type Compilation = Result<Arc<Candidate>, Vec<String>>;

/// What reading the directory gave.
#[derive(Debug, Default)]
pub struct Read {
    pub(super) policies: Vec<Arc<Candidate>>,
    /// Documents that need values.
    pub(super) unset: Vec<Unset>,
    pub(super) refused: Vec<(String, Vec<String>)>,
    /// The policies of agents with values of their own, by slot.
    pub(super) again: Vec<(u32, Compilation)>,
    /// Policies that were taken over and that no file gives, by slot.
    pub(super) taken: Vec<(u32, Compilation)>,
    pub(super) began: Option<Instant>,
    /// A directory can't be read.
    pub(super) unreadable: bool,
    /// Applied policies that were deleted before this was read: their names by their files.
    pub deleted: BTreeMap<String, String>,
}

#[cfg(test)]
impl Read {
    /// Name and file of each policy.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.policies.iter().map(|one| (one.name.as_str(), one.path.as_str()))
    }
}

/// What is loaded from the directory when it is read again: nothing that has not changed is compiled again.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The policies of its files.
    pub policies: Vec<Arc<Candidate>>,
    /// Documents that need values.
    pub unset: Vec<Unset>,
    /// The policies of agents with values of their own, by slot.
    pub again: Vec<(u32, Arc<Candidate>)>,
    /// All that were taken over from an earlier daemon and that this one has not compiled yet, by slot, each with whether it
    /// is one of the directory's.
    pub taken: Vec<(u32, bool, Arc<Candidate>)>,
}

/// Reads and compiles these directories whole, and what was taken over. Where two files give a policy of one name, that of the
/// earlier directory counts. Blocks the thread.
pub fn read(directories: &[PathBuf], compiler: &Compiler, known: &Known) -> Read {
    let mut read = Read { began: Some(Instant::now()), ..Read::default() };
    read_directories(directories, compiler, known, &mut read);
    for (slot, of_directory, candidate) in &known.taken {
        let by_file = *of_directory && read.policies.iter().any(|one| one.name == candidate.name);
        if !by_file && !read.again.iter().any(|(other, compiled)| other == slot && compiled.is_ok()) {
            let compiled = compiler.compile_again(candidate).map(Arc::new);
            read.taken.push((*slot, compiled.map_err(|errors| messages(&errors))));
        }
    }
    read
}

fn read_directories(directories: &[PathBuf], compiler: &Compiler, known: &Known, read: &mut Read) {
    let mut files = Vec::new();
    for directory in directories {
        match policy_files(directory) {
            Ok(found) => files.extend(found),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                // Nothing is known about the files, so nothing is taken for removed: see `apply`.
                let message = format!("cannot read the directory: {error}");
                read.refused.push((directory.display().to_string(), vec![message]));
                read.unreadable = true;
            }
        }
    }
    if read.unreadable {
        return;
    }
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
                    Compiled::NeedsValues(unset) => read.unset.push(unset),
                }
            }
        }
    }
    for (slot, candidate) in &known.again {
        let compiled = read_document(Path::new(&candidate.path)).and_then(|document| {
            if compiler.is_current(candidate, &document) {
                return Ok(candidate.clone());
            }
            compiler.protecting(&candidate.also).compile(document, &compiler.files, &candidate.variables).map(Arc::new)
        });
        read.again.push((*slot, compiled.map_err(|errors| messages(&errors))));
    }
}

/// A document that needs values for its variables before its policy can be bound.
#[derive(Clone, Debug)]
pub struct Unset {
    /// Name of its policy.
    pub name: String,
    /// The document.
    pub document: Document,
    /// What it includes.
    pub included: Vec<Included>,
}

/// What a document is.
pub enum Compiled {
    /// A policy that can be bound.
    Policy(Arc<Candidate>),
    /// One that needs values for its variables first.
    NeedsValues(Unset),
}

fn compile_one(file: &Path, compiler: &Compiler, known: &Known) -> Result<(String, Compiled), Diagnostics> {
    let document = read_document(file)?;
    if let Some(current) = known.policies.iter().find(|one| compiler.is_current(one, &document)) {
        return Ok((current.name.clone(), Compiled::Policy(current.clone())));
    }
    let is_known = |one: &&Unset| one.document == document && compiler.finds(&one.included);
    if let Some(current) = known.unset.iter().find(is_known) {
        return Ok((current.name.clone(), Compiled::NeedsValues(current.clone())));
    }
    compile_document(document, compiler)
}

/// Compiles a document, and gives the name of its policy.
///
/// # Errors
/// All that is wrong in it.
pub fn compile_document(document: Document, compiler: &Compiler) -> Result<(String, Compiled), Diagnostics> {
    match compiler.compile(document.clone(), &compiler.files, &BTreeMap::new()) {
        Ok(candidate) => Ok((candidate.name.clone(), Compiled::Policy(Arc::new(candidate)))),
        Err(errors) => {
            let (name, included) = compiler.check_unset(document.clone()).map_err(|_| errors)?;
            Ok((name.clone(), Compiled::NeedsValues(Unset { name, document, included })))
        }
    }
}

/// One message for each diagnostic, with its place.
pub fn messages(errors: &Diagnostics) -> Vec<String> {
    errors.iter().map(|error| error.to_string().trim_end().to_owned()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::daemon::compiler::tests::{HEAD, compiler};
    use std::fs;

    /// A policy without rules.
    pub fn compiled(compiler: &Compiler, name: &str, path: &str) -> Arc<Candidate> {
        let text = format!("{HEAD}metadata: {{name: {name}}}\nspec: {{}}\n");
        let document = Document { path: path.to_owned(), text };
        Arc::new(compiler.compile(document, &compiler.files, &BTreeMap::new()).expect("is valid"))
    }

    #[test]
    fn what_was_taken_over_is_compiled_of_its_file_or_else_of_what_was_written_down() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-taken", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("directory can be made");
        let (old, new) = (compiler(&root, "/run/old"), compiler(&root, "/run/new"));
        let taken = |name: &str, path: &str| {
            let mut candidate = Candidate::clone(&compiled(&old, name, path));
            candidate.compiled = false;
            Arc::new(candidate)
        };
        let file = root.join("here.yaml").display().to_string();
        let (here, sent) = (taken("here", &file), taken("sent", "sent.yaml"));
        fs::write(&file, &here.text).expect("file can be written");
        let mut known = Known { policies: vec![here.clone()], ..Known::default() };
        known.taken = vec![(1, true, here), (2, false, sent)];
        let slots = |read: &Read| read.taken.iter().map(|(slot, _)| *slot).collect::<Vec<_>>();
        let first = read(std::slice::from_ref(&root), &new, &known);
        assert_eq!(slots(&first), [2]);
        let expected = [compiled(&new, "here", &file), compiled(&new, "sent", "sent.yaml")].map(|one| one.image(1));
        let images = first.policies.iter().chain(first.taken.iter().filter_map(|(_, one)| one.as_ref().ok()));
        assert_eq!(images.map(|one| one.image(1)).collect::<Vec<_>>(), expected);
        // One whose file is refused now is compiled all the same, and so is all where nothing can be read.
        fs::write(&file, "spec: [").expect("file can be written");
        let broken = read(std::slice::from_ref(&root), &new, &known);
        assert_eq!((broken.refused.len(), slots(&broken)), (1, vec![1, 2]));
        assert_eq!(slots(&read(&[PathBuf::from(&file)], &new, &known)), [1, 2]);
        fs::remove_dir_all(root).expect("directory can be removed");
    }

    #[test]
    fn what_needs_values_is_compiled_once_until_it_or_what_it_includes_changes() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-unset", std::process::id()));
        fs::create_dir_all(&root).expect("directory can be made");
        let write = |name: &str, spec: &str| {
            let text = format!("{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n");
            fs::write(root.join(format!("{name}.yaml")), text).expect("file can be written");
        };
        let unset = "include: [base], variables: {W: null}, files: [{allow: [read], paths: [\"${W}\"]}]";
        write("base", "");
        write("main", unset);
        let compiler = compiler(&root, "/run/x");
        let names = |known: &Known| -> Vec<String> {
            let read = read(std::slice::from_ref(&root), &compiler, known);
            assert_eq!(read.policies.len(), 1, "{:?}", read.refused);
            read.unset.into_iter().map(|one| one.name).collect()
        };
        let first = read(std::slice::from_ref(&root), &compiler, &Known::default());
        assert_eq!(first.unset.len(), 1);
        // Told apart by a name that only what is known has.
        let renamed = first.unset.into_iter().map(|one| Unset { name: "known".to_owned(), ..one }).collect();
        let known = Known { unset: renamed, ..Known::default() };
        assert_eq!(names(&known), ["known"]);
        write("base", "exec: [{allow: [/bin/ls]}]");
        assert_eq!(names(&known), ["main"]);
        write("base", "");
        write("main", &format!("mode: audit, {unset}"));
        assert_eq!(names(&known), ["main"]);
        fs::remove_dir_all(root).expect("directory can be removed");
    }

    #[test]
    fn what_an_agents_policy_protects_stays_protected_whatever_becomes_of_its_document() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-protects", std::process::id()));
        fs::create_dir_all(&root).expect("directory can be made");
        let plain = compiler(&root, "/run/x");
        let with = plain.protecting(&["/w/records".to_owned()]);
        let file = root.join("p.yaml");
        let path = file.display().to_string();
        let known = compiled(&with, "p", &path);
        fs::write(&file, format!("{}# changed\n", known.text)).expect("file can be written");
        let mut taken = Candidate::clone(&known);
        taken.compiled = false;
        let known =
            Known { again: vec![(7, known.clone())], taken: vec![(8, false, Arc::new(taken))], ..Known::default() };
        let read = read(std::slice::from_ref(&root), &plain, &known);
        let renewed = [read.again.first(), read.taken.first()].map(|one| one.and_then(|(_, one)| one.as_ref().ok()));
        let expected = with.compile(read_document(&file).expect("is there"), &with.files, &BTreeMap::new());
        let image = expected.expect("is valid").image(1);
        for one in renewed {
            let one = one.expect("was compiled");
            assert_eq!((one.also.as_slice(), one.image(1)), (with.also.as_slice(), image.clone()));
        }
        assert_ne!(compiled(&plain, "p", &path).image(1), compiled(&with, "p", &path).image(1));
        fs::remove_dir_all(root).expect("directory can be removed");
    }
}
