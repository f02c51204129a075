//! What a policy is compiled from.

use crate::diagnostic::{Diagnostics, Report};
use crate::yaml::{Kind, parse};
use std::collections::BTreeMap;

/// The text of a policy or of a table of cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its path or name, as diagnostics show it.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Document {
    /// Largest document in bytes.
    pub const BYTES: usize = 4 << 20;

    /// A document from what a file holds.
    ///
    /// # Errors
    /// The bytes are not UTF-8, or too many.
    pub fn from_bytes(path: &str, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        Self::check_size(path, bytes.len())?;
        String::from_utf8(bytes).map(|text| Self { path: path.to_owned(), text }).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
            let help = Some("save the document as UTF-8".to_owned());
            Diagnostics::of_document(path, format!("not UTF-8 at line {line}, column {column}"), help)
        })
    }

    pub(crate) fn check_size(path: &str, bytes: usize) -> Result<(), Diagnostics> {
        if bytes <= Self::BYTES {
            return Ok(());
        }
        let message = format!("document has {bytes} bytes, more than {}", Self::BYTES);
        Err(Diagnostics::of_document(path, message, Some("split it and use `include`".to_owned())))
    }
}

/// `metadata.name` of a document, whatever is wrong elsewhere in it; `None` where it has none.
///
/// # Errors
/// It is no YAML, so its name can't be known; what is wrong in it.
pub fn name_of(document: &Document) -> Result<Option<String>, Diagnostics> {
    let mut report = Report::new(&document.path, &document.text);
    let Some(root) = parse(&document.text, &mut report) else { return Err(report.finish()) };
    let named = root.get("metadata").and_then(|metadata| metadata.get("name"));
    Ok(named.and_then(|name| match &name.kind {
        // What is no text is told when the document is compiled.
        Kind::Text(text) | Kind::Number(text) | Kind::Bool(text) => Some(text.clone()),
        _ => None,
    }))
}

/// Where included policies are found.
pub trait Library {
    /// The document with `metadata.name` `name`: looked for beside the file `beside`, then in the policy directory.
    ///
    /// # Errors
    /// It could not be looked for or read; the text says why.
    fn find(&self, name: &str, beside: &str) -> Result<Option<Document>, String>;
}

/// A library without documents: every `include` is an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLibrary;

impl Library for NoLibrary {
    fn find(&self, _name: &str, _beside: &str) -> Result<Option<Document>, String> {
        Ok(None)
    }
}

/// How a document is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Values that override those in `variables`, in each document that declares the name.
    pub variables: BTreeMap<String, String>,
    /// Takes variables without a value, as `policy check` does. A policy that was compiled so is not for loading: a name
    /// stands where the value is missing.
    pub allow_unset: bool,
}
