//! From the text of one document to its rules. Goes on after each error, so that all are found.

mod metadata;
mod network;
mod rules;
pub(crate) mod syscalls;
mod variables;

use crate::diagnostic::{Place, Report, near_or_list};
use crate::document::{Document, Options};
use crate::pattern::PatternError;
use crate::rule::{Object, Source};
use crate::yaml::{Kind, Node, parse};
use agent_monitor_common::class::{Mode, OnFault, SyscallEnforcement};
use variables::Values;

const API_VERSION: &str = "agent-monitor.dev/v1alpha1";
const KIND: &str = "AgentPolicy";
const SPEC: &[&str] = &[
    "mode",
    "onFault",
    "include",
    "variables",
    "files",
    "exec",
    "network",
    "syscalls",
    "syscallEnforcement",
    "privileges",
    "capabilities",
];

/// Reads one document.
pub(crate) fn read(document: &Document, options: &Options, report: &mut Report<'_>) -> Option<Source> {
    let root = parse(&document.text, report)?;
    let mut reader = Reader { report, options, values: Values::default(), source: Source::default() };
    reader.root(&root);
    Some(reader.source)
}

struct Reader<'a, 'r> {
    report: &'a mut Report<'r>,
    options: &'a Options,
    values: Values,
    source: Source,
}

impl Reader<'_, '_> {
    fn root(&mut self, root: &Node) {
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        let Some(fields) = self.report.fields(root, "document", &known) else { return };
        let whole = Place { width: 1, ..root.place };
        self.exactly(fields.get("apiVersion"), "apiVersion", API_VERSION, whole);
        self.exactly(fields.get("kind"), "kind", KIND, whole);
        match fields.get("metadata") {
            Some(node) => self.metadata(node),
            None => self.error(whole, "missing key `metadata`", "give the policy a name: `metadata: {name: NAME}`"),
        }
        match fields.get("spec") {
            Some(node) => self.spec(node),
            None => self.error(whole, "missing key `spec`", "write `spec: {}` for a policy that allows nothing"),
        }
    }

    fn exactly(&mut self, node: Option<&Node>, key: &str, right: &str, whole: Place) {
        let help = format!("write `{key}: {right}`");
        match node {
            None => self.error(whole, format!("missing key `{key}`"), help),
            Some(node) => {
                if let Some(text) = self.report.text(node, &format!("`{key}`")).filter(|text| *text != right) {
                    self.error(node.place, format!("`{key}` is `{text}`"), help);
                }
            }
        }
    }

    fn spec(&mut self, node: &Node) {
        let Some(fields) = self.report.fields_and_later(node, "`spec`", SPEC, &["record"]) else { return };
        if let Some(node) = fields.get("mode") {
            self.source.mode = self.mode(node);
        }
        if let Some(node) = fields.get("onFault") {
            let words: Vec<&str> = OnFault::ALL.iter().map(|one| one.name()).collect();
            let word = self.word(node, "`onFault`", &words).and_then(|word| OnFault::from_name(&word));
            self.source.on_fault = word.map(|word| (word, node.place));
        }
        if let Some(node) = fields.get("include") {
            self.include(node);
        }
        if let Some(node) = fields.get("variables") {
            self.variables(node);
        }
        if let Some(node) = fields.get("files") {
            self.each_rule(node, "files", Self::file_rule);
        }
        if let Some(node) = fields.get("exec") {
            self.each_rule(node, "exec", Self::exec_rule);
        }
        if let Some(node) = fields.get("network") {
            self.each_rule(node, "network", Self::network_rule);
        }
        if let Some(entry) = fields.entry("syscalls") {
            self.source.syscalls = Some(entry.place);
            self.each_rule(&entry.value, "syscalls", Self::syscall_rule);
        }
        if let Some(node) = fields.get("syscallEnforcement") {
            let words: Vec<&str> = SyscallEnforcement::ALL.iter().map(|one| one.name()).collect();
            let word = self.word(node, "`syscallEnforcement`", &words);
            self.source.syscall_enforcement = word.and_then(|word| SyscallEnforcement::from_name(&word));
        }
        if let Some(node) = fields.get("privileges") {
            self.each_rule(node, "privileges", Self::privilege_rule);
        }
        if let Some(node) = fields.get("capabilities") {
            self.each_rule(node, "capabilities", Self::capability_rule);
        }
    }

    fn mode(&mut self, node: &Node) -> Option<Mode> {
        if matches!(&node.kind, Kind::Text(text) if text == "learn") {
            self.error(node.place, "`mode: learn` is not yet supported", "write `enforce` or `audit`");
            return None;
        }
        let words: Vec<&str> = Mode::ALL.iter().map(|one| one.name()).collect();
        self.word(node, "`mode`", &words).and_then(|word| Mode::from_name(&word))
    }

    fn include(&mut self, node: &Node) {
        for node in self.report.list(node, "`include`").unwrap_or_default() {
            let Some(name) = self.report.text(node, "name of an included policy") else { continue };
            if metadata::is_name(name) {
                self.source.includes.push((name.to_owned(), node.place));
            } else {
                let help = "give the included policy's `metadata.name`, without directory or `.yaml`";
                self.error(node.place, format!("`{name}` is not the name of a policy"), help);
            }
        }
    }

    fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.report.wrong(place, message, help);
    }

    /// Reports what is wrong in a pattern at its place in the document.
    fn pattern_error(&mut self, node: &Node, text: &str, skipped: usize, error: PatternError) {
        let place = self.report.inside(node.place, text, error.offset + skipped);
        let place = if error.offset == 0 && skipped == 0 { node.place } else { place };
        self.report.error(place, error.message, error.help);
    }

    /// One of some words.
    fn word(&mut self, node: &Node, what: &str, words: &[&str]) -> Option<String> {
        let text = self.report.text(node, what)?;
        if words.contains(&text) {
            return Some(text.to_owned());
        }
        self.error(node.place, format!("{what} is `{text}`"), near_or_list(text, words));
        None
    }
}

/// An object of a rule, of bytes that are no path.
fn plain(access: u16, graph: crate::pattern::Graph, node: &Node, text: &str) -> Object {
    let language = crate::machine::Language::Bytes;
    Object { access, graph, language, prefix: None, place: node.place, text: text.to_owned() }
}
