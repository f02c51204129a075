//! Nodes as what is expected of them.

use crate::diagnostic::{Place, Report, near_or_list};
use crate::yaml::{Entry, Kind, Node};

/// The entries of a mapping.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n>(&'n [Entry]);

impl<'n> Fields<'n> {
    pub(crate) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }
}

impl Node {
    /// What this key has in it; nothing is reported where it is no mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else { return None };
        Fields(entries).get(key)
    }
}

impl Report<'_> {
    /// An error with what would be right.
    pub(crate) fn wrong(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.error(place, message, Some(help.into()));
    }

    /// A mapping with no other keys than those known.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Fields<'n>> {
        self.fields_and_later(node, what, known, &[])
    }

    /// A mapping with no other keys than those known; keys of the language that this version does not know are told apart
    /// from keys that nobody knows.
    pub(crate) fn fields_and_later<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
        later: &[&str],
    ) -> Option<Fields<'n>> {
        let entries = self.map(node, what)?;
        for entry in entries {
            let key = entry.key.as_str();
            if later.contains(&key) {
                let message = format!("`{key}` is not yet supported");
                self.wrong(entry.place, message, "remove the key: what this version can't enforce is not taken");
            } else if !known.contains(&key) && !key.is_empty() {
                self.wrong(entry.place, format!("unknown key `{key}` in {what}"), near_or_list(key, known));
            }
        }
        Some(Fields(entries))
    }

    pub(crate) fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        match &node.kind {
            Kind::Map(entries) => Some(entries),
            _ => self.expected(node, what, "a mapping, like `key: value`"),
        }
    }

    pub(crate) fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(nodes) => Some(nodes),
            Kind::Text(text) => {
                let help = format!("write a list: `[\"{text}\"]`");
                self.wrong(node.place, format!("{what} is text, expected a list"), help);
                None
            }
            _ => self.expected(node, what, "a list, like `[one, two]`"),
        }
    }

    /// A list that is not empty.
    pub(crate) fn filled_list<'n>(&mut self, node: &'n Node, what: &str, help: &str) -> Option<&'n [Node]> {
        let list = self.list(node, what)?;
        if list.is_empty() {
            self.wrong(node.place, format!("{what} is empty"), help);
            return None;
        }
        Some(list)
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => Some(text),
            Kind::Number(text) | Kind::Bool(text) => {
                let help = format!("quote it: `\"{text}\"`");
                self.wrong(node.place, format!("{what} is {}, expected text", node.what()), help);
                None
            }
            _ => {
                if !matches!(node.kind, Kind::Broken) {
                    self.error(node.place, format!("{what} is {}, expected text", node.what()), None);
                }
                None
            }
        }
    }

    /// A word, where a number or boolean is as wrong as an unknown word.
    pub(crate) fn word<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Number(text) | Kind::Bool(text) => Some(text),
            _ => self.text(node, what),
        }
    }

    fn expected<T>(&mut self, node: &Node, what: &str, right: &str) -> Option<T> {
        if !matches!(node.kind, Kind::Broken) {
            let short = right.split(',').next().unwrap_or(right);
            self.wrong(node.place, format!("{what} is {}, expected {short}", node.what()), format!("write {right}"));
        }
        None
    }
}
