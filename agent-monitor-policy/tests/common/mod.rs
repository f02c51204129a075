//! What several tests need: policies from the inside of a `spec`, and questions to them in one line.
#![allow(dead_code, reason = "each test uses a part of it")]

use agent_monitor_policy::{
    Compiled, Diagnostics, Document, Explanation, Image, Library, Options, Protected, compile, explain, operation,
};
use std::collections::BTreeMap;

/// A document named `name`; `spec` is indented by two.
pub fn document(name: &str, spec: &str) -> Document {
    let text = format!(
        "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: {name}}}\nspec:\n{spec}\n"
    );
    Document { path: format!("{name}.yaml"), text }
}

/// Included policies: name and inside of `spec`.
pub struct Policies(pub &'static [(&'static str, &'static str)]);

impl Library for Policies {
    fn find(&self, name: &str, _beside: &str) -> Result<Option<Document>, String> {
        Ok(self.0.iter().find(|(known, _)| *known == name).map(|(name, spec)| document(name, spec)))
    }
}

/// Compiles the inside of a `spec`.
pub fn compiled(spec: &str, library: &dyn Library, variables: &[(&str, &str)]) -> Result<Compiled, Diagnostics> {
    let variables: BTreeMap<_, _> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    compile(document("outer", spec), library, &Options { variables, allow_unset: false })
}

/// The image of the inside of a `spec`.
pub fn image(spec: &str) -> Image {
    let compiled = compiled(spec, &Policies(&[]), &[]).unwrap_or_else(|error| panic!("{error}"));
    compiled.policy.image(1, &[Protected::Tree("/run/agent-monitor".to_owned())]).expect("small")
}

/// Explains `OPERATION OBJECT [NEW]`.
pub fn ask(image: &Image, question: &str) -> Explanation {
    let words: Vec<&str> = question.split(' ').collect();
    let operation = operation::parse(words[0], words[1], words.get(2).copied())
        .unwrap_or_else(|error| panic!("{question}: {error}"));
    explain(image.as_bytes(), &operation)
}

/// The answer in one line: `allow files[0]`, `deny no_rule`.
pub fn answer(image: &Image, question: &str) -> String {
    let Explanation { verdict, reason, rule, .. } = ask(image, question);
    let by = match (reason.as_str(), rule) {
        ("allow_rule" | "deny_rule", Some(rule)) => rule,
        (_, rule) => reason + rule.as_deref().unwrap_or_default(),
    };
    format!("{} {by}", verdict.name())
}

/// Checks lines of `QUESTION -> ANSWER`.
pub fn check(spec: &str, lines: &str) {
    check_image(&image(spec), lines);
}

/// Checks lines of `QUESTION -> ANSWER`.
pub fn check_image(image: &Image, lines: &str) {
    let mut wrong = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (question, expected) = line.split_once(" -> ").unwrap_or_else(|| panic!("no answer in {line}"));
        let got = answer(image, question.trim());
        if got != expected.trim() {
            wrong.push(format!("{question} -> {got}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
