//! The notes of an image: what only user space needs to explain an event from the image alone. They hold the policy's
//! name and mode, the rules, and for each label which rule speaks of each access.

use crate::machine::{Cell, Label};
use agent_monitor_common::class::{Class, all_accesses};

/// A rule as records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleNote {
    pub name: String,
    pub reason: Option<String>,
    /// Line in its document.
    pub line: u32,
}

/// Which rule speaks of an access: numbers of rules count from 1, 0 is none; the top bit says that it denies.
const DENIES: u32 = 1 << 31;

/// How many accesses a class has.
pub(crate) fn cells(class: Class) -> usize {
    all_accesses(class).count_ones() as usize
}

/// Writes notes; `labels` are in the order of their numbers, from 1.
pub(crate) fn write(name: &str, mode: u8, rules: &[RuleNote], labels: &[(Class, Label)]) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, name);
    number(&mut out, u32::from(mode));
    number(&mut out, rules.len() as u32);
    for rule in rules {
        text(&mut out, &rule.name);
        number(&mut out, rule.line);
        number(&mut out, u32::from(rule.reason.is_some()));
        text(&mut out, rule.reason.as_deref().unwrap_or_default());
    }
    number(&mut out, labels.len() as u32);
    for (class, label) in labels {
        number(&mut out, *class as u32);
        for bit in 0..cells(*class) {
            number(
                &mut out,
                match label.cell(bit) {
                    Cell::Allow(rule) => rule + 1,
                    Cell::Deny(rule) => (rule + 1) | DENIES,
                    Cell::Builtin | Cell::None => 0,
                },
            );
        }
    }
    out
}

fn number(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u32);
    out.extend(text.as_bytes());
}

/// Notes that were read.
#[derive(Clone, Debug)]
pub(crate) struct Notes<'a> {
    pub name: &'a str,
    pub mode: u8,
    pub rules: Vec<NotedRule<'a>>,
    pub labels: Vec<NotedLabel>,
}

/// A rule that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotedRule<'a> {
    pub name: &'a str,
    pub reason: Option<&'a str>,
    pub line: u32,
}

/// A label that was read: what it says of each access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotedLabel {
    pub class: Class,
    pub cells: [Cell; 8],
}

/// Reads notes; `None` where they are not what [`write`] writes.
pub(crate) fn read(bytes: &[u8]) -> Option<Notes<'_>> {
    let mut reader = Reader(bytes);
    let (name, mode) = (reader.text()?, u8::try_from(reader.number()?).ok()?);
    let mut rules = Vec::new();
    for _ in 0..reader.number()? {
        let (name, line, reasoned) = (reader.text()?, reader.number()?, reader.number()?);
        let reason = reader.text()?;
        rules.push(NotedRule { name, line, reason: (reasoned == 1).then_some(reason) });
    }
    let mut labels = vec![NotedLabel { class: Class::File, cells: [Cell::None; 8] }];
    for _ in 0..reader.number()? {
        let class = Class::from_byte(u8::try_from(reader.number()?).ok()?)?;
        let mut cells_of = [Cell::None; 8];
        for cell in cells_of.iter_mut().take(cells(class)) {
            let number = reader.number()?;
            let rule = (number & !DENIES).checked_sub(1);
            if rule.is_some_and(|rule| rule as usize >= rules.len()) {
                return None;
            }
            *cell = match rule {
                None => Cell::None,
                Some(rule) if number & DENIES != 0 => Cell::Deny(rule),
                Some(rule) => Cell::Allow(rule),
            };
        }
        labels.push(NotedLabel { class, cells: cells_of });
    }
    reader.0.iter().all(|byte| *byte == 0).then_some(Notes { name, mode, rules, labels })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()? as usize;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}
