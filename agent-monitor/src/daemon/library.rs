//! Where policy documents are found: files of directories, and documents that came with a request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use agent_monitor_policy::{Compiled, Diagnostics, Document, Library, Options, compile};

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

/// A library that remembers what was found in it, so that it can be sent along.
#[derive(Debug)]
pub struct Remembering<L> {
    inner: L,
    found: RefCell<BTreeMap<String, Document>>,
}

impl<L> Remembering<L> {
    /// Remembers what `inner` finds.
    pub fn new(inner: L) -> Self {
        Self { inner, found: RefCell::default() }
    }

    /// What was found, by name.
    pub fn found(&self) -> BTreeMap<String, Document> {
        self.found.borrow().clone()
    }
}

impl<L: Library> Library for Remembering<L> {
    fn find(&self, name: &str, beside: &str) -> Result<Option<Document>, String> {
        let found = self.inner.find(name, beside)?;
        if let Some(document) = &found {
            self.found.borrow_mut().insert(name.to_owned(), document.clone());
        }
        Ok(found)
    }
}

/// Compiles a document.
///
/// # Errors
/// All that is wrong in it.
pub fn candidate(
    document: Document,
    library: &dyn Library,
    variables: &BTreeMap<String, String>,
) -> Result<Candidate, Diagnostics> {
    let (path, text) = (document.path.clone(), document.text.clone());
    let options = Options { variables: variables.clone(), allow_unset: false };
    let Compiled { policy, warnings } = compile(document, library, &options)?;
    let messages = warnings.iter().map(ToString::to_string).collect();
    Ok(Candidate { policy, messages, path, text, variables: variables.clone() })
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

/// The policy files directly in a directory, in the order of their names. Hidden ones are left out: editors and mounted
/// config maps keep their own there.
///
/// # Errors
/// The directory can't be read.
pub fn policy_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && path.is_file() {
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
        let files = Files::new(&root.join("policies"));
        let beside = root.join("beside/main.yaml").display().to_string();
        let find =
            |name: &str| files.find(name, &beside).expect("directories can be read").map(|document| document.path);
        assert!(find("both").is_some_and(|path| path.ends_with("beside/x.yaml")));
        assert!(find("only").is_some_and(|path| path.ends_with("policies/other.yml")));
        assert_eq!(find("hidden"), None);
    }
}
