//! Where policy documents are found: files of directories, and documents that came with a request.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use agent_monitor_policy::{Diagnostics, Document, Library, name_of};

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
    /// The documents: the policy itself, and what it includes.
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
    for path in &likely {
        // Another policy of that name, found further on, would lack what this one denies.
        let document = read_document(path).map_err(|errors| first(&errors))?;
        if is_named(&document, name).map_err(|errors| first(&errors))? {
            return Ok(Some(document));
        }
    }
    for path in &other {
        // A neighbour that is no document of that name is refused where it is loaded itself.
        let Ok(document) = read_document(path) else { continue };
        // Most need not be read as YAML: the name stands in them, or something escaped.
        let may_be = document.text.contains(name) || document.text.contains('\\');
        if may_be && is_named(&document, name).unwrap_or_else(|_| seems_named(&document.text, name)) {
            return Ok(Some(document));
        }
    }
    Ok(None)
}

/// Whether this is the document of that name. The compiler says what else is wrong in it.
fn is_named(document: &Document, name: &str) -> Result<bool, Diagnostics> {
    name_of(document).map(|found| found.is_some_and(|found| found == name))
}

/// Whether a document that is no YAML has that name in the ordinary place, so that it is refused and not passed over.
fn seems_named(text: &str, name: &str) -> bool {
    let head = text.lines().skip_while(|line| !line.starts_with("metadata:"));
    let metadata = head
        .enumerate()
        .take_while(|(number, line)| *number == 0 || line.trim().is_empty() || line.starts_with([' ', '#', '}']));
    let words = |line: &str| line.split([' ', ',', '{', '}']).map(str::to_owned).collect::<Vec<_>>();
    let words: Vec<String> = metadata.flat_map(|(_, line)| words(line)).filter(|word| !word.is_empty()).collect();
    let plain = |word: &str| word.trim_matches(['"', '\'']).to_owned();
    words.windows(2).any(|pair| {
        let [key, value] = pair else { return false };
        key.strip_suffix(':').is_some_and(|key| plain(key) == "name") && plain(value) == name
    })
}

fn first(errors: &Diagnostics) -> String {
    let Some(error) = errors.iter().next() else { return String::new() };
    let line = if error.place.line == 0 { String::new() } else { format!(":{}", error.place.line) };
    format!("{}{line}: {}", error.path, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_policy_of_a_name_is_found_in_whatever_form_and_never_passed_over() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-nearest", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for directory in ["beside", "policies"] {
            fs::create_dir_all(root.join(directory)).expect("directory can be made");
        }
        fs::write(root.join("policies/base.yaml"), "metadata: {name: base}\n").expect("file can be made");
        let files = Files::new(&root.join("policies"));
        let main = root.join("beside/main.yaml").display().to_string();
        let find = |file: &str, bytes: &[u8]| {
            let path = root.join("beside").join(file);
            fs::write(&path, bytes).expect("file can be made");
            let found = files.find("base", &main).map(|found| found.expect("one is there").path);
            fs::remove_file(path).expect("file can be removed");
            found
        };
        for text in [
            "metadata:\n  labels: {name: no}\n  name: base # it\n",
            "metadata: {\n  labels: {},\n  name: base}\n",
            "metadata:\n  \"name\": 'base'\n",
            "\"metadata\": {\"name\": \"base\"}\n",
            "metadata:\n  name:\n    base\n",
            "metadata: {name: \"\\x62ase\"}\n",
            // No YAML: the compiler says so, where it is found.
            "metadata: {name: base}\nspec: [\n",
            "metadata:\n  \"name\": base\nspec: }\n",
        ] {
            let found = find("other.yaml", text.as_bytes());
            assert!(found.as_ref().is_ok_and(|path| path.ends_with("beside/other.yaml")), "{text}: {found:?}");
        }
        for text in ["metadata: {name: base}\n", "metadata: {\n  name: base\n}\n"] {
            assert!(find("base.yaml", text.as_bytes()).is_ok_and(|path| path.ends_with("beside/base.yaml")), "{text}");
        }
        // What can't be read is no reason to take another one.
        for (bytes, why) in [(b"metadata: {name: base\n".as_slice(), "not YAML"), (b"\xff".as_slice(), "not UTF-8")] {
            let error = find("base.yaml", bytes).expect_err("can't be read");
            assert!(error.contains("beside/base.yaml") && error.contains(why), "{error}");
        }
        // Neighbours that are something else are.
        for text in
            ["metadata: {name: other}\n", "spec: {name: base}\n", "metadata: {labels: {name: base}}\n", "- base\n"]
        {
            for file in ["base.yaml", "other.yaml"] {
                assert!(find(file, text.as_bytes()).is_ok_and(|path| path.ends_with("policies/base.yaml")), "{text}");
            }
        }
        fs::remove_dir_all(root).expect("directory can be removed");
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
