//! Patterns: what a string of the policy language means, as a graph of what may follow what.

#[cfg(test)]
pub(crate) mod naive;
mod parse;
mod quote;
#[cfg(test)]
mod tests;

pub(crate) use parse::{PatternError, Variables, expand, parse_abstract, parse_path};
pub use quote::is_hidden;
pub(crate) use quote::{quote, readable};

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSet([u128; 2]);

impl ByteSet {
    pub(crate) const NONE: Self = Self([0; 2]);
    pub(crate) const ALL: Self = Self([u128::MAX; 2]);

    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 7)] |= 1 << (byte & 127);
    }

    pub(crate) fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 7)] &= !(1 << (byte & 127));
    }

    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 7)] >> (byte & 127) & 1 == 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    pub(crate) fn range(first: u8, last: u8) -> Self {
        let mut set = Self::NONE;
        (first..=last).for_each(|byte| set.insert(byte));
        set
    }

    pub(crate) fn not(self) -> Self {
        Self(self.0.map(|half| !half))
    }

    /// The set as ranges, ascending.
    pub(crate) fn ranges(&self) -> Vec<(u8, u8)> {
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for byte in (0..=255).filter(|byte| self.contains(*byte)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == byte => *last = byte,
                _ => ranges.push((byte, byte)),
            }
        }
        ranges
    }
}

/// Number of a node.
pub(crate) type NodeId = u32;

/// What a node matches, and the node that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing more: the end of the string.
    End,
    /// One byte.
    Byte(u8, NodeId),
    /// One byte of a set, which holds no slash where the graph is a pattern's.
    Set(ByteSet, NodeId),
    /// `*`: any run without a slash.
    Name(NodeId),
    /// `**`: any run. Between two slashes it may take the second one with it.
    Any(NodeId),
    /// One of several.
    Either(Vec<NodeId>),
}

/// A graph of nodes; node 0 is the end. It is built from the end to the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    steps: Vec<Step>,
    start: NodeId,
}

impl Graph {
    /// Matches the empty string.
    pub(crate) fn new() -> Self {
        Self { steps: vec![Step::End], start: 0 }
    }

    /// Adds a node.
    pub(crate) fn add(&mut self, step: Step) -> NodeId {
        self.steps.push(step);
        (self.steps.len() - 1) as NodeId
    }

    /// Adds nodes for `bytes` before `next`.
    pub(crate) fn literal(&mut self, bytes: &[u8], next: NodeId) -> NodeId {
        bytes.iter().rev().fold(next, |next, byte| self.add(Step::Byte(*byte, next)))
    }

    /// Makes `start` the first node.
    pub(crate) fn starting(self, start: NodeId) -> Self {
        Self { start, ..self }
    }

    /// Matches just `bytes`.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let mut graph = Self::new();
        let start = graph.literal(bytes, 0);
        graph.starting(start)
    }

    /// Matches `path` and everything below it.
    pub(crate) fn of_tree(path: &[u8]) -> Self {
        let mut graph = Self::new();
        let below = graph.add(Step::Any(0));
        let below = graph.add(Step::Byte(b'/', below));
        let either = graph.add(Step::Either(vec![0, below]));
        let start = graph.literal(path, either);
        graph.starting(start)
    }

    /// Matches everything that begins with `path`.
    pub(crate) fn of_prefix(path: &[u8]) -> Self {
        let mut graph = Self::new();
        let more = graph.add(Step::Any(0));
        let start = graph.literal(path, more);
        graph.starting(start)
    }

    /// Matches `byte` and then what `self` matches.
    pub(crate) fn behind(mut self, byte: u8) -> Self {
        let start = self.add(Step::Byte(byte, self.start));
        self.starting(start)
    }

    pub(crate) fn step(&self, node: NodeId) -> &Step {
        &self.steps[node as usize]
    }

    pub(crate) fn start(&self) -> NodeId {
        self.start
    }

    /// How often a `**` goes on to something: what makes unions large.
    pub(crate) fn runs(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Any(next) if *next != 0)).count()
    }

    /// How many `*` and `**` there are.
    pub(crate) fn stars(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Any(_) | Step::Name(_))).count()
    }

    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }
}
