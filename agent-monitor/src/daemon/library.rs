//! Where policy documents are found: files of directories, and documents that came with a request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use agent_monitor_policy::{Compiled, Diagnostics, Document, ImageError, Library, Options, Protected, compile};

use super::policies::Candidate;
use crate::control::api;

/// Files in directories: beside the including document, then in the policy directory.
#[derive(Clone, Debug)]
pub struct Files {
    policies_dir: PathBuf,
}

impl Files {
    /// The files of this policy directory.
    pub fn new(policies_dir: &Path) -> Self {
        Self { policies_dir: policies_dir.to_owned() }
    }
}

impl Library for Files {
    fn find(&self, name: &str, beside: &str) -> Result<Option<Document>, String> {
        let beside = Path::new(beside).parent().map(Path::to_owned);
        let directories = beside.into_iter().chain([self.policies_dir.clone()]);
        for directory in directories {
            let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
            if let Some(found) = find_in(&directory, name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Documents that came with a request, then the files.
#[derive(Clone, Debug)]
pub struct Sent<'a> {
    /// The documents.
    pub documents: &'a [api::Document],
    /// Where the rest is found.
    pub files: Files,
}

impl Library for Sent<'_> {
    fn find(&self, name: &str, beside: &str) -> Result<Option<Document>, String> {
        let sent = self.documents.iter().skip(1).find(|document| document.name == name);
        match sent {
            Some(found) => Ok(Some(Document { path: found.path.clone(), text: found.text.clone() })),
            None => self.files.find(name, beside),
        }
    }
}

/// A library that remembers what was found in it, so that it can be sent along and compared later.
struct Remembering<'a> {
    inner: &'a dyn Library,
    found: RefCell<Vec<Included>>,
}

/// A document that another one includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The name by which it is included.
    pub name: String,
    /// The document that includes it.
    pub beside: String,
    /// The document.
    pub document: Document,
}

impl Library for Remembering<'_> {
    fn find(&self, name: &str, beside: &str) -> Result<Option<Document>, String> {
        let found = self.inner.find(name, beside)?;
        if let Some(document) = &found {
            let (name, beside) = (name.to_owned(), beside.to_owned());
            self.found.borrow_mut().push(Included { name, beside, document: document.clone() });
        }
        Ok(found)
    }
}

/// Compiles documents to images that protect the monitor's own paths.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Where included documents are found.
    pub files: Files,
    /// Paths that no agent may touch, whatever its policy says.
    pub protected: Vec<Protected>,
}

impl Compiler {
    /// Compiles a document; what it includes is found in `library`.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn compile(
        &self,
        document: Document,
        library: &dyn Library,
        variables: &BTreeMap<String, String>,
    ) -> Result<Candidate, Diagnostics> {
        let (path, text) = (document.path.clone(), document.text.clone());
        let options = Options { variables: variables.clone(), allow_unset: false };
        let library = Remembering { inner: library, found: RefCell::default() };
        let Compiled { policy, warnings } = compile(document, &library, &options)?;
        let messages = warnings.iter().map(|warning| warning.to_string().trim_end().to_owned()).collect();
        let included = library.found.take();
        let refuse = |error: ImageError| Diagnostics::of_document(&path, error.to_string(), None);
        let mut candidate = Candidate::new(&policy, &self.protected).map_err(refuse)?;
        candidate.messages = messages;
        candidate.variables.clone_from(variables);
        candidate.included = included;
        (candidate.path, candidate.text) = (path, text);
        Ok(candidate)
    }

    /// Whether compiling again would give the same: neither the document nor what it includes has changed.
    pub fn is_current(&self, known: &Candidate, document: &Document) -> bool {
        let same = |one: &Included| {
            let found = self.files.find(&one.name, &one.beside);
            found.is_ok_and(|found| found.as_ref() == Some(&one.document))
        };
        known.path == document.path && known.text == document.text && known.included.iter().all(same)
    }
}

/// Reads a document; a file that is larger than any document may be is not read whole.
///
/// # Errors
/// The file can't be read, or is no document.
pub fn read_document(path: &Path) -> Result<Document, Diagnostics> {
    let shown = path.display().to_string();
    let refuse = |error: io::Error| Diagnostics::of_document(&shown, format!("cannot read the file: {error}"), None);
    let file = File::open(path).map_err(refuse)?;
    let mut bytes = Vec::new();
    file.take(Document::BYTES as u64 + 1).read_to_end(&mut bytes).map_err(refuse)?;
    Document::from_bytes(&shown, bytes)
}

/// The policy files directly in a directory, in the order of their names. Hidden ones are left out (editors and mounted
/// config maps keep their own there), and so are tables of cases, `*.cases.yaml`, which lie beside their policies.
///
/// # Errors
/// The directory can't be read.
pub fn policy_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let cases = path.file_stem().is_some_and(|stem| stem.as_encoded_bytes().ends_with(b".cases"));
        if yaml && !hidden && !cases && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn find_in(directory: &Path, name: &str) -> Result<Option<Document>, String> {
    let files = match policy_files(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read the directory {}: {error}", directory.display())),
    };
    // Most files are named like the policy in them.
    let (likely, other): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|path| path.file_stem().is_some_and(|stem| stem == name));
    for path in likely.into_iter().chain(other) {
        // A neighbour that is no document is not what is looked for; it is refused where it is loaded itself.
        let Ok(document) = read_document(&path) else { continue };
        if name_of(&document.text).is_some_and(|found| found == name) {
            return Ok(Some(document));
        }
    }
    Ok(None)
}

/// `metadata.name` of a document, read without looking at anything else, so that a neighbour with errors elsewhere is
/// still told by its name. The compiler checks the name of what was found.
fn name_of(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    let metadata = lines.find_map(|line| line.strip_prefix("metadata:"))?;
    if let Some(flow) = metadata.trim().strip_prefix('{') {
        return flow.trim_end_matches('}').split(',').find_map(name_field);
    }
    lines.take_while(|line| line.trim().is_empty() || line.starts_with([' ', '#'])).find_map(name_field)
}

fn name_field(text: &str) -> Option<&str> {
    let value = text.trim().strip_prefix("name:")?;
    Some(value.split(" #").next()?.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\n";

    #[test]
    fn a_policy_is_current_until_it_or_what_it_includes_changes() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-current", std::process::id()));
        fs::create_dir_all(&root).expect("directory can be made");
        let write = |name: &str, spec: &str| {
            let text = format!("{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n");
            fs::write(root.join(format!("{name}.yaml")), text).expect("file can be written");
        };
        write("base", "");
        write("main", "include: [base]");
        let compiler = Compiler { files: Files::new(&root), protected: vec![Protected::Tree("/run/x".to_owned())] };
        let read = || read_document(&root.join("main.yaml")).expect("file can be read");
        let known = compiler.compile(read(), &compiler.files, &BTreeMap::new()).expect("is valid");
        assert_eq!(known.included.len(), 1);
        assert!(compiler.is_current(&known, &read()));
        write("base", "exec: [{allow: [/bin/ls]}]");
        assert!(!compiler.is_current(&known, &read()));
        write("base", "");
        assert!(compiler.is_current(&known, &read()));
        write("main", "");
        assert!(!compiler.is_current(&known, &read()));
    }

    #[test]
    fn names_are_found_in_block_and_flow_style() {
        assert_eq!(name_of("kind: X\nmetadata:\n  labels: {name: no}\n  name: base # it\nspec:\n"), Some("base"));
        assert_eq!(name_of("metadata: {labels: {}, name: \"base\"}\n"), Some("base"));
        assert_eq!(name_of("metadata: {}\nspec:\n  name: no\n"), None);
        assert_eq!(name_of("# nothing\n"), None);
    }

    #[test]
    fn policies_are_found_beside_the_document_and_then_in_the_directory() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-library", std::process::id()));
        for directory in ["beside", "policies"] {
            fs::create_dir_all(root.join(directory)).expect("directory can be made");
        }
        let write = |path: &str, name: &str| {
            fs::write(root.join(path), format!("metadata:\n  name: {name}\n")).expect("file can be made")
        };
        write("beside/x.yaml", "both");
        write("policies/both.yaml", "both");
        write("policies/other.yml", "only");
        write("policies/.hidden.yaml", "hidden");
        write("policies/only.cases.yaml", "cases");
        let files = Files::new(&root.join("policies"));
        let beside = root.join("beside/main.yaml").display().to_string();
        let find =
            |name: &str| files.find(name, &beside).expect("directories can be read").map(|document| document.path);
        assert!(find("both").is_some_and(|path| path.ends_with("beside/x.yaml")));
        assert!(find("only").is_some_and(|path| path.ends_with("policies/other.yml")));
        assert_eq!((find("hidden"), find("cases")), (None, None));
    }
}
