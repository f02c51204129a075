//! Moore machines over bytes: the automata that images hold, and how rules become one.
//!
//! Each pattern is made into a small minimal machine (see [`leaf`]); machines are united two by two and made minimal after
//! each step. So a hundred patterns of which each "has been seen or not" cost what their union needs and not two to the
//! power of a hundred, which determinizing them all at once would. State 0 is dead in every machine.

mod leaf;
mod minimize;
#[cfg(test)]
mod tests;

pub(crate) use leaf::{Language, leaf};
pub(crate) use minimize::{classes_of_states, minimize};

use std::collections::HashMap;

/// What the rules that match say about each access: a number for each bit, of which the least wins when machines are
/// united. Classes with fewer accesses use the first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Label(pub [u32; 8]);

/// A built-in rule denies.
const BUILTIN: u32 = 0;
/// Denied by rule `cell - DENY`.
const DENY: u32 = 1;
/// Allowed by rule `cell - ALLOW`.
const ALLOW: u32 = 1 << 30;

/// What a label says about one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Builtin,
    Deny(u32),
    Allow(u32),
    None,
}

impl Label {
    /// No rule matches.
    pub(crate) const NONE: Self = Self([u32::MAX; 8]);
    /// Whatever the rules say.
    pub(crate) const BUILTIN: Self = Self([BUILTIN; 8]);

    /// The rule with this number matches and speaks of `access`.
    pub(crate) fn of_rule(allow: bool, rule: u32, access: u16) -> Self {
        let base = if allow { ALLOW } else { DENY };
        Self(std::array::from_fn(|bit| if access >> bit & 1 == 1 { base + rule } else { u32::MAX }))
    }

    /// Both match.
    pub(crate) fn with(self, other: Self) -> Self {
        Self(std::array::from_fn(|bit| self.0[bit].min(other.0[bit])))
    }

    pub(crate) fn cell(&self, bit: usize) -> Cell {
        match self.0[bit] {
            BUILTIN => Cell::Builtin,
            u32::MAX => Cell::None,
            cell @ ALLOW.. => Cell::Allow(cell - ALLOW),
            cell => Cell::Deny(cell - DENY),
        }
    }

    fn bits(&self, is: impl Fn(Cell) -> bool) -> u16 {
        (0..8).filter(|bit| is(self.cell(*bit))).fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Accesses that are allowed and not denied.
    pub(crate) fn allowed(&self) -> u16 {
        self.bits(|cell| matches!(cell, Cell::Allow(_)))
    }

    /// Accesses that a rule denies.
    pub(crate) fn denied(&self) -> u16 {
        self.bits(|cell| matches!(cell, Cell::Deny(_)))
    }

    /// Whether a built-in rule denies.
    pub(crate) fn builtin(&self) -> bool {
        self.0[0] == BUILTIN
    }
}

/// A machine whose every state is reached and from whose every state but 0 some label is reached.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Class of each byte.
    pub classes: Box<[u8; 256]>,
    /// Number of classes.
    pub stride: usize,
    /// Next states, a row of `stride` for each state.
    pub rows: Vec<u32>,
    /// Label of each state.
    pub labels: Vec<Label>,
    /// The first state.
    pub start: u32,
}

/// A machine would be larger than any image can hold, or needs more work than a policy may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// How many transitions all machines of one policy may have had together: bounds time (a few seconds) and memory of a
/// hostile policy.
pub(crate) struct Budget(pub u64);

/// Transitions of one machine before it is minimal: eight times what the largest image holds.
const CELLS: usize = 16 << 20;

impl Budget {
    /// For one policy.
    pub(crate) const POLICY: u64 = 256 << 20;

    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn spend(&mut self, cells: usize) -> Result<(), TooLarge> {
        let rest = self.0.checked_sub(cells as u64);
        // What is spent stays spent: after the first refusal nothing more is tried.
        self.0 = rest.unwrap_or(0);
        rest.map(|_| ()).ok_or(TooLarge)
    }
}

impl Machine {
    /// Matches nothing.
    pub(crate) fn empty() -> Self {
        Self { classes: Box::new([0; 256]), stride: 1, rows: vec![0], labels: vec![Label::NONE], start: 0 }
    }

    /// Number of states, the dead one included.
    pub(crate) fn states(&self) -> usize {
        self.labels.len()
    }

    /// Whether nothing matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == 0
    }

    pub(crate) fn next(&self, state: u32, byte: u8) -> u32 {
        self.rows[state as usize * self.stride + usize::from(self.classes[usize::from(byte)])]
    }

    /// The state after `bytes`.
    pub(crate) fn walk(&self, bytes: &[u8]) -> u32 {
        bytes.iter().fold(self.start, |state, byte| self.next(state, *byte))
    }

    pub(crate) fn label(&self, state: u32) -> Label {
        self.labels[state as usize]
    }

    /// Length of the shortest string that has a label.
    pub(crate) fn shortest(&self) -> Option<usize> {
        let mut seen = vec![false; self.states()];
        let (mut level, mut length) = (vec![self.start], 0);
        seen[self.start as usize] = true;
        while !level.is_empty() {
            let mut next = Vec::new();
            for state in level {
                if self.label(state) != Label::NONE {
                    return Some(length);
                }
                for target in &self.rows[state as usize * self.stride..][..self.stride] {
                    if *target != 0 && !std::mem::replace(&mut seen[*target as usize], true) {
                        next.push(*target);
                    }
                }
            }
            (level, length) = (next, length + 1);
        }
        None
    }

    /// Matches `byte` and then what `self` matches.
    pub(crate) fn after(&self, byte: u8) -> Self {
        if self.is_empty() {
            return Self::empty();
        }
        // The new first state is the last number; minimizing renumbers.
        let pairs = Pairs::new(&self.classes, &std::array::from_fn(|b| u8::from(b == usize::from(byte))));
        let stride = pairs.stride();
        let mut rows = Vec::with_capacity((self.states() + 1) * stride);
        for state in 0..self.states() {
            rows.extend(pairs.list.iter().map(|(ours, _)| self.rows[state * self.stride + usize::from(*ours)]));
        }
        rows.extend(pairs.list.iter().map(|(_, hit)| if *hit == 1 { self.start } else { 0 }));
        let mut labels = self.labels.clone();
        labels.push(Label::NONE);
        let start = self.states() as u32;
        minimize(Self { classes: pairs.classes, stride, rows, labels, start })
    }

    /// Matches what either matches, with the labels of both.
    pub(crate) fn with(&self, other: &Self, budget: &mut Budget) -> Result<Self, TooLarge> {
        if self.is_empty() {
            return Ok(other.clone());
        }
        if other.is_empty() {
            return Ok(self.clone());
        }
        let pairs = Pairs::new(&self.classes, &other.classes);
        let stride = pairs.stride();
        let mut numbers = Numbers::new(self.states(), other.states());
        let start = numbers.of(self.start, other.start);
        let (mut rows, mut labels) = (vec![0; stride], vec![Label::NONE]);
        let mut at = 1;
        while at < numbers.list.len() {
            let (a, b) = numbers.list[at];
            labels.push(self.label(a).with(other.label(b)));
            budget.spend(stride)?;
            if rows.len() + stride > CELLS {
                return Err(TooLarge);
            }
            let (row_a, row_b) = (a as usize * self.stride, b as usize * other.stride);
            for (ca, cb) in &pairs.list {
                let next = (self.rows[row_a + usize::from(*ca)], other.rows[row_b + usize::from(*cb)]);
                rows.push(numbers.of(next.0, next.1));
            }
            at += 1;
        }
        Ok(minimize(Self { classes: pairs.classes, stride, rows, labels, start }))
    }

    /// Unites machines, neighbours first: rules that stand together tend to speak of the same directories. The error is
    /// the range of machines whose union is too large.
    pub(crate) fn union(machines: &[Self], budget: &mut Budget) -> Result<Self, std::ops::Range<usize>> {
        match machines {
            [] => Ok(Self::empty()),
            [one] => Ok(one.clone()),
            _ => {
                let (left, right) = machines.split_at(machines.len() / 2);
                let shift = |range: std::ops::Range<usize>| range.start + left.len()..range.end + left.len();
                let (a, b) = (Self::union(left, budget)?, Self::union(right, budget).map_err(shift)?);
                a.with(&b, budget).map_err(|TooLarge| 0..machines.len())
            }
        }
    }

    /// Whether each string that `self` matches is denied by `denials` in all accesses of `access`.
    pub(crate) fn hidden_by(&self, denials: &Self, access: u16, budget: &mut Budget) -> Result<bool, TooLarge> {
        if denials.is_empty() {
            return Ok(false);
        }
        let pairs = Pairs::new(&self.classes, &denials.classes);
        let mut numbers = Numbers::new(self.states(), denials.states());
        numbers.of(self.start, denials.start);
        let mut at = 1;
        while at < numbers.list.len() {
            let (a, b) = numbers.list[at];
            // What `denials` can't reach any more is not hidden: some label follows every state but the dead one.
            if b == 0 || self.label(a).allowed() & access & !denials.label(b).denied() != 0 {
                return Ok(false);
            }
            budget.spend(pairs.stride())?;
            for (ca, cb) in &pairs.list {
                let next = self.rows[a as usize * self.stride + usize::from(*ca)];
                if next != 0 {
                    numbers.of(next, denials.rows[b as usize * denials.stride + usize::from(*cb)]);
                }
            }
            at += 1;
        }
        Ok(true)
    }
}

/// The byte classes of two machines together.
struct Pairs {
    classes: Box<[u8; 256]>,
    list: Vec<(u8, u8)>,
}

impl Pairs {
    fn new(a: &[u8; 256], b: &[u8; 256]) -> Self {
        let mut known = HashMap::new();
        let mut list = Vec::new();
        let classes = std::array::from_fn(|byte| {
            *known.entry((a[byte], b[byte])).or_insert_with(|| {
                list.push((a[byte], b[byte]));
                (list.len() - 1) as u8
            })
        });
        Self { classes: Box::new(classes), list }
    }

    fn stride(&self) -> usize {
        self.list.len()
    }
}

/// Numbers for pairs of states, in the order in which they are met; the pair of dead states is 0.
struct Numbers {
    list: Vec<(u32, u32)>,
    /// Pairs with one dead state are most, and need no hashing.
    only_a: Vec<u32>,
    only_b: Vec<u32>,
    both: HashMap<u64, u32, Mixer>,
}

impl Numbers {
    fn new(a: usize, b: usize) -> Self {
        Self { list: vec![(0, 0)], only_a: vec![0; a], only_b: vec![0; b], both: HashMap::with_hasher(Mixer(0)) }
    }

    fn of(&mut self, a: u32, b: u32) -> u32 {
        if a == 0 && b == 0 {
            return 0;
        }
        let fresh = self.list.len() as u32;
        let slot = match (a, b) {
            (_, 0) => &mut self.only_a[a as usize],
            (0, _) => &mut self.only_b[b as usize],
            _ => self.both.entry(u64::from(a) << 32 | u64::from(b)).or_insert(0),
        };
        if *slot == 0 {
            *slot = fresh;
            self.list.push((a, b));
        }
        *slot
    }
}

/// Hashes a pair of state numbers. They are ours and not a stranger's, so nobody can aim for collisions cheaply, and
/// [`Budget`] bounds what they cost.
#[derive(Clone, Copy, Default)]
struct Mixer(u64);

impl std::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

impl std::hash::BuildHasher for Mixer {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}
