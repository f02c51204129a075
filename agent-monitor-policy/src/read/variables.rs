//! `variables`: names and their values.

use super::Reader;
use crate::diagnostic::did_you_mean;
use crate::document::Document;
use crate::pattern::{PatternError, Variables};
use crate::yaml::{Kind, Node};
use agent_monitor_common::limit::PATH_BYTES;
use std::cell::Cell;
use std::collections::BTreeMap;

/// The variables of one document; `None` for one without a value.
#[derive(Default)]
pub(super) struct Values {
    by_name: BTreeMap<String, Option<String>>,
    /// Bytes that were inserted for them.
    inserted: Cell<usize>,
}

impl Variables for Values {
    fn value(&self, name: &str) -> Result<Option<String>, PatternError> {
        let value = self.by_name.get(name).cloned().ok_or_else(|| {
            let help = did_you_mean(name, self.by_name.keys().map(String::as_str))
                .unwrap_or_else(|| format!("declare it: `variables: {{{name}: VALUE}}`, or `null` for no default"));
            PatternError::new(0, format!("variable `{name}` is not declared"), help)
        })?;
        // What is written out is bounded by the size of the document, and what is inserted likewise.
        let inserted = self.inserted.get().saturating_add(value.as_ref().map_or(0, String::len));
        if inserted > Document::BYTES {
            let message = format!("variables make the document longer than {} bytes", Document::BYTES);
            return Err(PatternError::new(0, message, "split it and use `include`"));
        }
        self.inserted.set(inserted);
        Ok(value)
    }
}

impl Reader<'_, '_> {
    pub(super) fn variables(&mut self, node: &Node) {
        for entry in self.report.map(node, "`variables`").unwrap_or_default() {
            if !is_variable(&entry.key) {
                let help = "use letters, digits and `_`, and begin with no digit";
                self.error(entry.place, format!("`{}` is not the name of a variable", entry.key), help);
                continue;
            }
            let name = entry.key.clone();
            self.source.declared.push(name.clone());
            let value = match (self.options.variables.get(&name), &entry.value.kind) {
                (Some(given), _) => self.checked(&entry.value, &name, &given.clone()),
                (None, Kind::Null) => {
                    if !self.options.allow_unset {
                        let help = format!("give it one: `--var {name}=VALUE`");
                        self.error(entry.place, format!("variable `{name}` has no value"), help);
                    }
                    None
                }
                (None, _) => match self.report.text(&entry.value, &format!("variable `{name}`")) {
                    Some(text) => self.checked(&entry.value, &name, text),
                    None => None,
                },
            };
            self.values.by_name.insert(name, value);
        }
    }

    /// The value without the slash at its end.
    fn checked(&mut self, node: &Node, name: &str, value: &str) -> Option<String> {
        if value.is_empty() {
            self.error(node.place, format!("value of variable `{name}` is empty"), "write `null` for no default");
            return None;
        }
        if value.len() > PATH_BYTES {
            let message = format!("value of variable `{name}` has {} bytes, more than any path", value.len());
            self.error(node.place, message, format!("use {PATH_BYTES} bytes or fewer"));
            return None;
        }
        if value.contains("${") {
            let help = "write the value out: a value is inserted literally";
            self.error(node.place, format!("value of variable `{name}` holds `${{`"), help);
            return None;
        }
        Some(value.strip_suffix('/').unwrap_or(value).to_owned())
    }
}

fn is_variable(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
}
