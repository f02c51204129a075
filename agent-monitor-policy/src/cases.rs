//! Tables of operations with the verdict expected of each: `policy test`.

mod run;

pub use run::{Difference, Outcome, run};

use crate::diagnostic::{Diagnostics, Report, near_or_list};
use crate::document::Document;
use crate::yaml::{Kind, Node, parse as parse_yaml};
use agent_monitor_common::class::Verdict;
use std::collections::BTreeMap;

/// A table of cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases {
    /// The document's path.
    pub path: String,
    /// The name that the policy must have.
    pub policy: Option<String>,
    /// Values for the policy's variables.
    pub variables: BTreeMap<String, String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row: an operation, and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its line in the document.
    pub line: u32,
    /// The operation, like `file:read`.
    pub operation: String,
    /// The object.
    pub object: String,
    /// The new object of a rename or link.
    pub new_object: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason, where one is expected.
    pub reason: Option<String>,
    /// The rule, where one is expected.
    pub rule: Option<String>,
}

/// Reads a table of cases.
///
/// # Errors
/// All that is wrong in it.
pub fn parse(document: &Document) -> Result<Cases, Diagnostics> {
    Document::check_size(&document.path, document.text.len())?;
    let mut report = Report::new(&document.path, &document.text);
    let cases = parse_yaml(&document.text, &mut report).and_then(|root| read(&root, document, &mut report));
    match (cases, report.finish()) {
        (Some(cases), found) if found.is_empty() => Ok(cases),
        (_, found) => Err(found.sorted()),
    }
}

fn read(root: &Node, document: &Document, report: &mut Report<'_>) -> Option<Cases> {
    let fields = report.fields(root, "document", &["policy", "variables", "cases"])?;
    let policy = fields.get("policy").and_then(|node| report.text(node, "`policy`")).map(str::to_owned);
    let mut variables = BTreeMap::new();
    if let Some(node) = fields.get("variables") {
        for entry in report.map(node, "`variables`")? {
            if let Some(value) = report.text(&entry.value, &format!("variable `{}`", entry.key)) {
                variables.insert(entry.key.clone(), value.to_owned());
            }
        }
    }
    let Some(list) = fields.get("cases") else {
        report.wrong(root.place, "missing key `cases`", "write a list of rows: `cases: [...]`");
        return None;
    };
    let rows = report.list(list, "`cases`")?.iter().filter_map(|node| row(node, report)).collect();
    Some(Cases { path: document.path.clone(), policy, variables, rows })
}

fn row(node: &Node, report: &mut Report<'_>) -> Option<Row> {
    let known = ["operation", "object", "newObject", "verdict", "reason", "rule"];
    let fields = report.fields(node, "case", &known)?;
    let mut text = |key: &str, needed: bool| match fields.get(key) {
        Some(node) => report.text(node, &format!("`{key}`")).map(str::to_owned),
        None => {
            if needed {
                report.wrong(
                    node.place,
                    format!("missing key `{key}` in case"),
                    "a case has operation, object and verdict",
                );
            }
            None
        }
    };
    let (operation, object, word) = (text("operation", true), text("object", true), text("verdict", true));
    let (new_object, reason, rule) = (text("newObject", false), text("reason", false), text("rule", false));
    let verdict = match word.as_deref() {
        Some("allow") => Some(Verdict::Allow),
        Some("deny") => Some(Verdict::Deny),
        Some(other) => {
            let place = fields.get("verdict").map_or(node.place, |node| node.place);
            report.wrong(place, format!("unknown verdict `{other}`"), near_or_list(other, &["allow", "deny"]));
            None
        }
        None => None,
    };
    if matches!(node.kind, Kind::Broken) {
        return None;
    }
    let line = node.place.line;
    Some(Row { line, operation: operation?, object: object?, new_object, verdict: verdict?, reason, rule })
}
