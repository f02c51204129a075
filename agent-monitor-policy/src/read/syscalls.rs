//! Rules of system calls.

use super::rules::Body;
use super::{Reader, plain};
use crate::diagnostic::did_you_mean;
use crate::pattern::{ByteSet, Graph, Step};
use crate::rule::Object;
use crate::syscall::{FOREIGN, group_names, members};
use crate::yaml::Node;
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::syscall::{self, Abi};

impl Reader<'_, '_> {
    pub(super) fn syscall_rule(&mut self, node: &Node) -> Option<Body> {
        let common = self.common(node, &[])?;
        let reason = self.reason(&common.fields);
        let list = self.report.filled_list(
            common.effect,
            "list of system calls",
            "name a system call or a group, like `\"@agent\"`",
        );
        let mut objects = Vec::new();
        for node in list.unwrap_or_default() {
            let Some(text) = self.report.word(node, "system call") else { continue };
            match graph(text) {
                Some(graph) => objects.push(plain(USE, graph, node, text)),
                None if text.starts_with('@') => {
                    let help = did_you_mean(text, group_names())
                        .unwrap_or_else(|| format!("groups are {}", group_names().collect::<Vec<_>>().join(", ")));
                    self.error(node.place, format!("unknown group of system calls `{text}`"), help);
                }
                None => self.error(node.place, format!("unknown system call `{text}`"), unknown_help(text)),
            }
        }
        Some(Body { class: Class::Syscall, allow: common.allow, reason, objects })
    }
}

/// What would be right instead of a name that is none on this architecture.
pub(crate) fn unknown_help(text: &str) -> String {
    let group = format!("@{text}");
    if group_names().any(|known| known == group) {
        return format!("a group begins with `@`: write `\"{group}\"`");
    }
    did_you_mean(text, syscall::all().map(|(_, name)| name))
        .unwrap_or_else(|| "write the name that x86_64 has for it, as in syscalls(2)".to_owned())
}

/// The rule that a policy has in which no document has `syscalls`: its only object.
pub(crate) fn agent_object() -> Option<Object> {
    let text = crate::syscall::AGENT;
    let graph = graph(text)?;
    let language = crate::machine::Language::Bytes;
    let place = crate::diagnostic::Place::default();
    Some(Object { access: USE, graph, language, prefix: None, place, text: text.to_owned() })
}

/// The operands that a name or a group stands for.
fn graph(text: &str) -> Option<Graph> {
    if text == FOREIGN {
        let mut abis = ByteSet::NONE;
        Abi::ALL.iter().filter(|abi| **abi != Abi::Native).for_each(|abi| abis.insert(*abi as u8));
        let mut graph = Graph::new();
        let low = graph.add(Step::Set(ByteSet::ALL, 0));
        let high = graph.add(Step::Set(ByteSet::ALL, low));
        let start = graph.add(Step::Set(abis, high));
        return Some(graph.starting(start));
    }
    let numbers = match text.starts_with('@') {
        true => members(text)?,
        false => vec![syscall::number(text)?],
    };
    let mut graph = Graph::new();
    let mut highs = Vec::new();
    let mut rest = numbers.as_slice();
    while let Some(first) = rest.first() {
        let high = first >> 8;
        let (same, others) = rest.split_at(rest.partition_point(|number| number >> 8 == high));
        let mut lows = ByteSet::NONE;
        same.iter().for_each(|number| lows.insert(*number as u8));
        let low = graph.add(Step::Set(lows, 0));
        highs.push(graph.add(Step::Byte(high as u8, low)));
        rest = others;
    }
    let high = graph.add(Step::Either(highs));
    let start = graph.add(Step::Byte(Abi::Native as u8, high));
    Some(graph.starting(start))
}
