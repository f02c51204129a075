//! `metadata`: the name and the labels. What Kubernetes writes there is taken and ignored.

use super::Reader;
use crate::yaml::Node;

const KNOWN: &[&str] = &[
    "name",
    "labels",
    "annotations",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

impl Reader<'_, '_> {
    pub(super) fn metadata(&mut self, node: &Node) {
        let Some(fields) = self.report.fields(node, "`metadata`", KNOWN) else { return };
        let Some(name) = fields.get("name") else {
            self.error(node.place, "missing key `name` in `metadata`", "give the policy a name");
            return;
        };
        if let Some(text) = self.report.text(name, "`name`") {
            if is_name(text) {
                self.source.name = text.to_owned();
            } else {
                let help = "use lower-case letters, digits, `-` and `.`, at most 253, a letter or digit at both ends";
                self.error(name.place, format!("`{text}` is not a name"), help);
            }
        }
        if let Some(labels) = fields.get("labels") {
            self.labels(labels);
        }
    }

    fn labels(&mut self, node: &Node) {
        for entry in self.report.map(node, "`labels`").unwrap_or_default() {
            let Some(value) = self.report.text(&entry.value, &format!("label `{}`", entry.key)) else { continue };
            let (prefix, name) = entry.key.split_once('/').map_or((None, entry.key.as_str()), |(p, n)| (Some(p), n));
            if !is_label(name) || name.is_empty() || prefix.is_some_and(|prefix| !is_name(prefix)) {
                let help = "a key is at most 63 letters, digits, `-`, `_` and `.`, after an optional domain and `/`";
                self.error(entry.place, format!("`{}` is not the key of a label", entry.key), help);
            } else if is_label(value) {
                self.source.labels.insert(entry.key.clone(), value.to_owned());
            } else {
                let help = "a value is at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends";
                self.error(entry.value.place, format!("`{value}` is not the value of a label"), help);
            }
        }
    }
}

/// Whether `text` is a DNS subdomain, as Kubernetes wants names.
pub(super) fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= 253
        && text
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-'))
}

/// Whether `text` is what Kubernetes takes for the value of a label.
fn is_label(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
        && (text.is_empty() || text.starts_with(edge) && text.ends_with(edge))
}
