//! Compiling policy documents for this node, with all that a later daemon needs to compile them again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use agent_monitor_common::layout::LAYOUT;
use agent_monitor_policy::{
    BUILD, Compiled, Diagnostics, Document, ImageError, ImageView, Library, Options, Protected, compile,
};
use sha2::{Digest, Sha256};

use super::library::Files;
use super::policies::Candidate;
use super::state::PolicyState;

/// Compiles documents to images that protect the monitor's own paths.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Where included documents are found.
    pub files: Files,
    /// Paths that no agent may touch, whatever its policy says.
    pub protected: Vec<Protected>,
    /// More of them, for some agents only.
    pub also: Vec<String>,
}

impl Compiler {
    /// One that finds included documents in this policy directory, and protects these paths.
    pub fn new(policies_dir: &Path, protected: Vec<Protected>) -> Self {
        Self { files: Files::new(policies_dir), protected, also: Vec::new() }
    }

    /// The same, with these paths protected too.
    pub fn protecting(&self, paths: &[String]) -> Self {
        Self { also: paths.to_vec(), ..self.clone() }
    }

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
        let also = self.also.iter().cloned().map(Protected::Tree);
        let protected: Vec<Protected> = self.protected.iter().cloned().chain(also).collect();
        let mut candidate = Candidate::new(&policy, &protected).map_err(refuse)?;
        candidate.also.clone_from(&self.also);
        candidate.messages = messages;
        candidate.variables.clone_from(variables);
        candidate.included = included;
        (candidate.path, candidate.text) = (path, text);
        candidate.seal = self.seal(&candidate);
        Ok(candidate)
    }

    /// A policy that is in force already. It need not be compiled again where its seal says that this build has made the
    /// image that the kernel has, of the documents that the state has, for the paths that are protected now.
    pub fn restored(&self, view: &ImageView<'_>, state: Option<PolicyState>) -> Candidate {
        let known = state.as_ref().map(|state| state.seal.clone()).unwrap_or_default();
        let mut candidate = Candidate::restored(view, state);
        if !known.is_empty() && known == self.seal(&candidate) {
            candidate.compiled = true;
            candidate.seal = known;
        }
        candidate
    }

    /// A hash of a policy's image and of all that it follows from: this build, the documents, the values of variables, and
    /// what is protected.
    fn seal(&self, candidate: &Candidate) -> String {
        let Candidate { path, text, variables, included, also, .. } = candidate;
        // Between quotes each part is escaped, so that none can look like two.
        let origin = format!("{:?}", (BUILD, LAYOUT, &self.protected, also, path, text, variables, included));
        let digest = Sha256::new().chain_update(origin).chain_update([0]).chain_update(candidate.image(0)).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compiles a policy that was taken over again, of the documents that were written down with it.
    ///
    /// # Errors
    /// They were not written down, or this version refuses them.
    pub fn compile_again(&self, known: &Candidate) -> Result<Candidate, Diagnostics> {
        if known.text.is_empty() {
            return Err(Diagnostics::of_document(&known.path, "its document is not known", None));
        }
        let document = Document { path: known.path.clone(), text: known.text.clone() };
        self.protecting(&known.also).compile(document, &Recorded(&known.included), &known.variables)
    }

    /// Whether compiling again would give the same: this daemon has compiled it or would make the same of it, and neither the
    /// document nor what it includes has changed.
    pub fn is_current(&self, known: &Candidate, document: &Document) -> bool {
        let is_same = known.path == document.path && known.text == document.text;
        known.compiled && is_same && self.finds(&known.included)
    }

    /// Whether what a document includes is found as it was.
    pub fn finds(&self, included: &[Included]) -> bool {
        let same = |one: &Included| {
            let found = self.files.find(&one.name, &one.beside);
            found.is_ok_and(|found| found.as_ref() == Some(&one.document))
        };
        included.iter().all(same)
    }

    /// Checks a document that needs values for its variables: the name of its policy, and what it includes.
    ///
    /// # Errors
    /// All that is wrong in it beside the values.
    pub fn check_unset(&self, document: Document) -> Result<(String, Vec<Included>), Diagnostics> {
        let options = Options { allow_unset: true, ..Options::default() };
        let library = Remembering { inner: &self.files, found: RefCell::default() };
        let compiled = compile(document, &library, &options)?;
        Ok((compiled.policy.name().to_owned(), library.found.take()))
    }
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

/// What a policy included when its document was written down.
struct Recorded<'a>(&'a [Included]);

impl Library for Recorded<'_> {
    fn find(&self, name: &str, beside: &str) -> Result<Option<Document>, String> {
        let found = self.0.iter().find(|one| one.name == name && one.beside == beside);
        Ok(found.map(|one| one.document.clone()))
    }
}

/// A library that remembers what was found in it, so that it can be sent along and compared later.
struct Remembering<'a> {
    inner: &'a dyn Library,
    found: RefCell<Vec<Included>>,
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::daemon::library::read_document;
    use crate::daemon::policies::Source;
    use std::fs;
    use std::path::PathBuf;

    /// Start of every policy.
    pub const HEAD: &str = "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\n";

    /// A compiler of this policy directory's documents that protects a tree.
    pub fn compiler(directory: &Path, protected: &str) -> Compiler {
        Compiler::new(directory, vec![Protected::Tree(protected.to_owned())])
    }

    /// A directory of a test's own, and what writes a policy into it.
    fn place(test: &str) -> (PathBuf, impl Fn(&str, &str)) {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-{test}", std::process::id()));
        fs::create_dir_all(&root).expect("directory can be made");
        let into = root.clone();
        let write = move |name: &str, spec: &str| {
            let text = format!("{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n");
            fs::write(into.join(format!("{name}.yaml")), text).expect("file can be written");
        };
        (root, write)
    }

    #[test]
    fn a_policy_is_current_until_it_or_what_it_includes_changes() {
        let (root, write) = place("current");
        write("base", "");
        write("main", "include: [base]");
        let compiler = compiler(&root, "/run/x");
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
        fs::remove_dir_all(root).expect("directory can be removed");
    }

    #[test]
    fn a_policy_that_was_taken_over_is_not_current_and_is_compiled_of_what_was_written_down() {
        let (root, write) = place("again");
        write("base", "exec: [{allow: [/bin/ls]}]");
        write("main", "include: [base]");
        let document = read_document(&root.join("main.yaml")).expect("file can be read");
        let compile = |compiler: &Compiler| {
            compiler.compile(document.clone(), &compiler.files, &BTreeMap::new()).expect("is valid")
        };
        let (old, new) = (compiler(&root, "/run/old"), compiler(&root, "/run/new"));
        let mut known = compile(&old);
        known.compiled = false;
        assert!(!old.is_current(&known, &document) && !new.is_current(&known, &document));
        let expected = compile(&new);
        // What is in the files now is not what was written down.
        fs::remove_dir_all(&root).expect("directory can be removed");
        let again = new.compile_again(&known).expect("is valid");
        assert_eq!(again.image(1), expected.image(1));
        assert_ne!(again.image(1), known.image(1));
        assert!(again.compiled && again.included == known.included);
        known.text.clear();
        let error = new.compile_again(&known).expect_err("nothing is known").to_string();
        assert!(error.contains("not known"), "{error}");
    }

    #[test]
    fn a_policy_that_was_taken_over_is_current_where_this_build_would_make_the_same() {
        let (root, write) = place("sealed");
        write("base", "exec: [{allow: [/bin/ls]}]");
        write("main", "include: [base]");
        let document = read_document(&root.join("main.yaml")).expect("file can be read");
        let compiler = compiler(&root, "/run/x");
        let with = compiler.protecting(&["/w".to_owned()]);
        let compile = |compiler: &Compiler| {
            compiler.compile(document.clone(), &compiler.files, &BTreeMap::new()).expect("is valid")
        };
        for (made, also) in [(compile(&compiler), 0), (compile(&with), 1)] {
            let (image, state) = (made.image(7), PolicyState::of(3, &Source::Directory, &made));
            let is_current = |compiler: &Compiler, image: &[u8], state: &PolicyState| {
                let view = ImageView::parse(image).expect("is an image");
                let restored = compiler.restored(&view, Some(state.clone()));
                // What is not known to be so is not said of it to the next daemon either.
                assert_eq!(restored.seal.is_empty(), !restored.compiled);
                compiler.is_current(&restored, &document)
            };
            assert!(is_current(&compiler, &image, &state));
            assert_eq!(state.also.len(), also);
            let other = Compiler { protected: vec![Protected::Tree("/run/y".to_owned())], ..compiler.clone() };
            assert!(!is_current(&other, &image, &state));
            // The daemon was killed before the kernel had the image of the document that is written down.
            let older = compile(&other).image(6);
            assert!(!is_current(&compiler, &older, &state));
            let changes: [fn(&mut PolicyState); 5] = [
                |state| state.seal.clear(),
                |state| state.text.push('#'),
                |state| state.also.push("/v".to_owned()),
                |state| state.included.clear(),
                |state| drop(state.variables.insert("A".to_owned(), "b".to_owned())),
            ];
            for change in changes {
                let mut changed = state.clone();
                change(&mut changed);
                assert!(!is_current(&compiler, &image, &changed));
            }
        }
        fs::remove_dir_all(root).expect("directory can be removed");
    }
}
