//! The machine of one pattern: a graph of what may follow what, determinized by `regex-automata`, and cut down to the
//! strings that an operand can be.

use super::{Budget, Label, Machine, TooLarge, minimize};
use crate::pattern::{Graph, NodeId, Step};
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{Builder, NFA, Transition};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use std::collections::HashMap;

/// What strings an operand can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Resolved paths: absolute, no empty name, no `.` and no `..`, no NUL, no slash at the end.
    Path,
    /// Any bytes.
    Bytes,
}

/// Most memory of a graph's NFA, of its determinization and of the resulting DFA. A pattern that needs more needs more
/// states than an image has.
const MEMORY: usize = 4 << 20;

/// What a leaf costs besides its transitions.
const OVERHEAD: usize = 512;
/// What each state of a leaf costs, and that again for each star that it can be in: determinizing is dear.
const STATE: usize = 64;
/// What each state of a leaf with stars costs for each node that it can be in.
const NODE: usize = 16;
/// What a leaf costs that turns out too large.
const FAILURE: usize = 32 << 20;

/// The machine of `graph`: `label` for each string of `language` that it matches.
pub(crate) fn leaf(graph: &Graph, language: Language, label: Label, budget: &mut Budget) -> Result<Machine, TooLarge> {
    budget.spend(OVERHEAD + graph.len() * 16)?;
    let nfa = nfa(graph).map_err(|_| TooLarge)?;
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .accelerate(false)
        .dfa_size_limit(Some(MEMORY))
        .determinize_size_limit(Some(MEMORY));
    let Ok(dfa) = dense::Builder::new().configure(config).build_from_nfa(&nfa) else {
        budget.spend(FAILURE)?;
        return Err(TooLarge);
    };
    let stars = graph.stars();
    let cost = STATE * (1 + stars) + if stars > 0 { NODE * graph.len() } else { 0 };
    extract(&dfa, language, label, cost, budget)
}

/// Follows the DFA and the language together.
fn extract(
    dfa: &dense::DFA<Vec<u32>>,
    language: Language,
    label: Label,
    cost: usize,
    budget: &mut Budget,
) -> Result<Machine, TooLarge> {
    let start = start::Config::new().anchored(Anchored::Yes);
    let first = dfa.start_state(&start).map_err(|_| TooLarge)?;
    // Byte classes of the DFA, parted further where the language tells bytes apart.
    let mut known = HashMap::new();
    let mut bytes: Vec<u8> = Vec::new();
    let classes: Box<[u8; 256]> = Box::new(std::array::from_fn(|byte| {
        let byte = byte as u8;
        let kind = if language == Language::Path { Place::kind(byte) } else { 0 };
        *known.entry((dfa.byte_classes().get(byte), kind)).or_insert_with(|| {
            bytes.push(byte);
            (bytes.len() - 1) as u8
        })
    }));
    let mut numbers: HashMap<(regex_automata::util::primitives::StateID, Place), u32> = HashMap::new();
    let mut list = vec![(first, Place::Start)];
    numbers.insert(list[0], 1);
    let (mut rows, mut labels) = (vec![0; bytes.len()], vec![Label::NONE]);
    let mut at = 0;
    while at < list.len() {
        let (state, place) = list[at];
        budget.spend(cost + bytes.len())?;
        let ends = language == Language::Bytes || place.is_path();
        let matches = ends && dfa.is_match_state(dfa.next_eoi_state(state));
        labels.push(if matches { label } else { Label::NONE });
        for byte in &bytes {
            let next = dfa.next_state(state, *byte);
            let place = if language == Language::Path { place.next(*byte) } else { Some(place) };
            rows.push(match place {
                Some(place) if !dfa.is_dead_state(next) => *numbers.entry((next, place)).or_insert_with(|| {
                    list.push((next, place));
                    list.len() as u32
                }),
                _ => 0,
            });
        }
        at += 1;
    }
    Ok(minimize(Machine { classes, stride: bytes.len(), rows, labels, start: 1 }))
}

/// Where in a resolved path a byte is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Start,
    Root,
    Slash,
    Dot,
    DotDot,
    Name,
}

impl Place {
    fn kind(byte: u8) -> u8 {
        match byte {
            0 => 1,
            b'/' => 2,
            b'.' => 3,
            _ => 0,
        }
    }

    fn is_path(self) -> bool {
        matches!(self, Self::Root | Self::Name)
    }

    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (_, 0) => None,
            (Self::Start, b'/') => Some(Self::Root),
            (Self::Name, b'/') => Some(Self::Slash),
            (Self::Start, _) | (_, b'/') => None,
            (Self::Root | Self::Slash, b'.') => Some(Self::Dot),
            (Self::Dot, b'.') => Some(Self::DotDot),
            _ => Some(Self::Name),
        }
    }
}

/// A node of the graph as a state: whether a literal slash stands right before it, and whether the literal slash that must
/// follow is left out (`/**/` also matches one `/`).
type Key = (NodeId, bool, bool);

struct Translator<'g> {
    graph: &'g Graph,
    builder: Builder,
    states: HashMap<Key, StateID>,
    todo: Vec<(Key, StateID)>,
    end: StateID,
}

type Built<T> = Result<T, regex_automata::nfa::thompson::BuildError>;

fn nfa(graph: &Graph) -> Built<NFA> {
    let mut builder = Builder::new();
    builder.set_size_limit(Some(MEMORY))?;
    builder.start_pattern()?;
    let end = builder.add_match()?;
    let mut translator = Translator { graph, builder, states: HashMap::new(), todo: Vec::new(), end };
    let start = translator.state((graph.start(), false, false))?;
    while let Some((key, state)) = translator.todo.pop() {
        translator.fill(key, state)?;
    }
    translator.builder.finish_pattern(start)?;
    translator.builder.build(start, start)
}

impl Translator<'_> {
    /// The state of `key`: a union whose alternatives are filled in later.
    fn state(&mut self, key: Key) -> Built<StateID> {
        if let Some(state) = self.states.get(&key) {
            return Ok(*state);
        }
        let state = self.builder.add_union(Vec::new())?;
        self.states.insert(key, state);
        self.todo.push((key, state));
        Ok(state)
    }

    /// From `state` to the state of `key` at no byte.
    fn join(&mut self, state: StateID, key: Key) -> Built<()> {
        let target = self.state(key)?;
        self.builder.patch(state, target)
    }

    /// From `state` to the state of `key` at a byte from `first` to `last`.
    fn consume(&mut self, state: StateID, (start, end): (u8, u8), key: Key) -> Built<()> {
        let next = self.state(key)?;
        let range = self.builder.add_range(Transition { start, end, next })?;
        self.builder.patch(state, range)
    }

    fn fill(&mut self, (node, slash, skip): Key, state: StateID) -> Built<()> {
        let graph = self.graph;
        match graph.step(node) {
            Step::End if !skip => {
                let end = self.end;
                self.builder.patch(state, end)?;
            }
            Step::Byte(b'/', next) if skip => self.join(state, (*next, true, false))?,
            Step::Byte(byte, next) if !skip => self.consume(state, (*byte, *byte), (*next, *byte == b'/', false))?,
            Step::Set(set, next) if !skip => {
                for range in set.ranges() {
                    self.consume(state, range, (*next, false, false))?;
                }
            }
            Step::Either(nodes) => {
                for next in nodes {
                    self.join(state, (*next, slash, skip))?;
                }
            }
            Step::Name(next) if !skip => {
                self.join(state, (*next, false, false))?;
                self.consume(state, (0, b'/' - 1), (node, false, false))?;
                self.consume(state, (b'/' + 1, 255), (node, false, false))?;
            }
            Step::Any(next) if !skip => {
                self.join(state, (*next, false, false))?;
                if slash {
                    self.join(state, (*next, true, true))?;
                }
                self.consume(state, (0, 255), (node, false, false))?;
            }
            // The slash that should be left out does not follow.
            _ => {}
        }
        Ok(())
    }
}
