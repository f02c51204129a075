//! Running tables of cases.

use super::{Cases, Row};
use crate::compile::compile;
use crate::diagnostic::Diagnostics;
use crate::document::{Document, Library, Options};
use crate::explain::Explanation;
use crate::operation;
use crate::view::ImageView;
use std::fmt;

/// What a table of cases gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many rows are as expected.
    pub passed: usize,
    /// The rows that are not, in order.
    pub failed: Vec<Difference>,
}

/// A row that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The table's path.
    pub path: String,
    /// The row.
    pub row: Row,
    /// What differs: `verdict: expected allow, got deny (no_rule)`.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { line, operation, object, new_object, .. } = &self.row;
        write!(f, "{}:{line}: {operation} {object}", self.path)?;
        if let Some(new) = new_object {
            write!(f, " {new}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Compiles `policy` with the variables of the table, over which those of `options` win, and judges each row.
///
/// # Errors
/// The policy does not compile, or has another name than the table says.
pub fn run(cases: &Cases, policy: &Document, library: &dyn Library, options: &Options) -> Result<Outcome, Diagnostics> {
    let mut variables = cases.variables.clone();
    variables.extend(options.variables.clone());
    let options = Options { variables, ..options.clone() };
    let policy = compile(policy.clone(), library, &options)?.policy;
    if let Some(name) = cases.policy.as_deref().filter(|name| *name != policy.name()) {
        let message = format!("table is for the policy `{name}`, not `{}`", policy.name());
        let help = format!("write `policy: {}`, or give the policy that it is for", policy.name());
        return Err(Diagnostics::of_document(&cases.path, message, Some(help)));
    }
    let wrong = |error: crate::image::ImageError| Diagnostics::of_document(&cases.path, error.to_string(), None);
    let image = policy.image(0, &[]).map_err(wrong)?;
    let view = ImageView::parse(image.as_bytes()).map_err(wrong)?;
    let mut outcome = Outcome::default();
    for row in &cases.rows {
        match judge(row, &view) {
            Ok(()) => outcome.passed += 1,
            Err(what) => outcome.failed.push(Difference { path: cases.path.clone(), row: row.clone(), what }),
        }
    }
    Ok(outcome)
}

fn judge(row: &Row, view: &ImageView<'_>) -> Result<(), String> {
    let operation = operation::parse(&row.operation, &row.object, row.new_object.as_deref())?;
    let Explanation { verdict, reason, rule, .. } = view.explain(&operation);
    let by = rule.as_deref().map_or_else(|| reason.clone(), |rule| format!("{reason} {rule}"));
    if verdict != row.verdict {
        return Err(format!("verdict: expected {}, got {} ({by})", row.verdict.name(), verdict.name()));
    }
    if let Some(expected) = row.reason.as_deref().filter(|expected| *expected != reason) {
        return Err(format!("reason: expected {expected}, got {by}"));
    }
    match &row.rule {
        Some(expected) if rule.as_ref() != Some(expected) => {
            Err(format!("rule: expected {expected}, got {}", rule.as_deref().unwrap_or("none")))
        }
        _ => Ok(()),
    }
}
