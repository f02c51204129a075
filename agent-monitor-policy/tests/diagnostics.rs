//! Broken documents and exactly what is said about each: `tests/broken/NAME.yaml` and `NAME.txt`.
//!
//! `AGENT_MONITOR_BLESS=1` writes the expected texts anew; look at the difference before you commit it.

use agent_monitor_policy::{Diagnostics, Document, Library, Options, compile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

struct Beside;

impl Library for Beside {
    fn find(&self, name: &str, _beside: &str) -> Result<Option<Document>, String> {
        let path = directory().join(format!("library/{name}.yaml"));
        let text = std::fs::read_to_string(&path).ok();
        Ok(text.map(|text| Document { path: format!("library/{name}.yaml"), text }))
    }
}

/// What is said about a document.
fn said(path: &Path, options: &Options) -> String {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let found: Result<Diagnostics, Diagnostics> = Document::from_bytes(&name, std::fs::read(path).expect("readable"))
        .and_then(|document| compile(document, &Beside, options))
        .map(|compiled| compiled.warnings);
    let (Ok(found) | Err(found)) = found;
    found.to_string()
}

#[test]
fn every_broken_document_is_explained_in_full() {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory())
        .expect("the directory is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let mut different = Vec::new();
    for path in paths {
        let (got, expected) = (said(&path, &Options::default()), path.with_extension("txt"));
        if std::env::var_os("AGENT_MONITOR_BLESS").is_some() {
            std::fs::write(&expected, &got).expect("writable");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != got {
            different.push(format!("{}:\n{got}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[test]
fn an_override_of_an_undeclared_variable_is_an_error() {
    let options = Options { variables: BTreeMap::from([("MDOE".to_owned(), "x".to_owned())]), allow_unset: false };
    let text = "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: a}\n\
                spec: {variables: {MODE: b}}\n";
    let document = Document { path: "a.yaml".to_owned(), text: text.to_owned() };
    let error = compile(document, &Beside, &options).expect_err("undeclared").to_string();
    assert_eq!(error, "error: variable `MDOE` is not declared\n --> a.yaml\n  = help: did you mean `MODE`?\n");
}

#[test]
fn bytes_that_are_not_utf8_have_a_place() {
    let error = Document::from_bytes("a.yaml", b"a: b\nc: \xc3\xa9\xff".to_vec()).expect_err("not UTF-8").to_string();
    assert!(error.starts_with("error: not UTF-8 at line 2, column 5\n --> a.yaml\n"), "{error}");
}
