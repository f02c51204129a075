//! The minimal machine, in one canonical numbering: equal policies give equal images, and in the kernel two names end in
//! the same state exactly if nothing that may follow tells them apart.

use super::{Label, Machine};
use std::collections::HashMap;

/// The minimal machine that is equivalent, numbered breadth first.
pub(crate) fn minimize(machine: Machine) -> Machine {
    let live = productive(&machine);
    if !live[machine.start as usize] {
        return Machine::empty();
    }
    let mut signatures = HashMap::new();
    let first: Vec<u32> = machine
        .labels
        .iter()
        .map(|label| {
            let fresh = signatures.len() as u32;
            *signatures.entry(*label).or_insert(fresh)
        })
        .collect();
    let block = refine(&machine, &live, &first);
    renumber(&machine, &live, &block)
}

/// A number for each state, equal for states that nothing tells apart that may follow, if all that is seen of a state is
/// its `signature`. Numbers are given in the order of the states; the dead state has 0, with all that are like it.
pub(crate) fn classes_of_states<S: Eq + std::hash::Hash + Copy>(
    machine: &Machine,
    signature: impl Fn(Label) -> S,
) -> Vec<u32> {
    let nothing = signature(Label::NONE);
    let signatures: Vec<S> = machine.labels.iter().map(|label| signature(*label)).collect();
    let live = reaching(machine, |state| signatures[state] != nothing);
    let mut known = HashMap::from([(nothing, 0)]);
    let first: Vec<u32> = signatures
        .iter()
        .map(|signature| {
            let fresh = known.len() as u32;
            *known.entry(*signature).or_insert(fresh)
        })
        .collect();
    let block = refine(machine, &live, &first);
    let mut numbers = HashMap::new();
    (0..machine.states())
        .map(|state| {
            if !live[state] {
                return 0;
            }
            let fresh = numbers.len() as u32 + 1;
            *numbers.entry(block[state]).or_insert(fresh)
        })
        .collect()
}

/// Which states some label can be reached from.
fn productive(machine: &Machine) -> Vec<bool> {
    reaching(machine, |state| machine.labels[state] != Label::NONE)
}

/// Which states a state can be reached from that `is` one of those looked for.
fn reaching(machine: &Machine, is: impl Fn(usize) -> bool) -> Vec<bool> {
    let (heads, sources) = incoming(machine, |_, _| true);
    let mut live: Vec<bool> = (0..machine.states()).map(is).collect();
    let mut todo: Vec<usize> = (0..machine.states()).filter(|state| live[*state]).collect();
    while let Some(state) = todo.pop() {
        for cell in &sources[heads[state] as usize..heads[state + 1] as usize] {
            let source = *cell as usize / machine.stride;
            if !std::mem::replace(&mut live[source], true) {
                todo.push(source);
            }
        }
    }
    live
}

/// The cells of the transition table by the state that they lead to: `sources[heads[s]..heads[s + 1]]` lead to `s`.
fn incoming(machine: &Machine, keep: impl Fn(usize, u32) -> bool) -> (Vec<u32>, Vec<u32>) {
    let mut heads = vec![0_u32; machine.states() + 1];
    let kept = || machine.rows.iter().enumerate().filter(|(cell, target)| keep(cell / machine.stride, **target));
    for (_, target) in kept() {
        heads[*target as usize + 1] += 1;
    }
    for state in 0..machine.states() {
        heads[state + 1] += heads[state];
    }
    let mut at = heads.clone();
    let mut sources = vec![0; heads[machine.states()] as usize];
    for (cell, target) in kept() {
        let slot = &mut at[*target as usize];
        sources[*slot as usize] = cell as u32;
        *slot += 1;
    }
    (heads, sources)
}

/// A partition that is split by marking (Valmari and Lehtinen, "Efficient minimization of DFAs with partial transition
/// functions"). Elements of a set lie side by side, the marked ones first.
struct Partition {
    elements: Vec<u32>,
    location: Vec<u32>,
    set_of: Vec<u32>,
    first: Vec<u32>,
    past: Vec<u32>,
    marked: Vec<u32>,
    touched: Vec<u32>,
}

impl Partition {
    /// The sets are those of equal `key`, which is below `keys`; sets without elements are left out.
    fn new(key: &[u32], keys: usize) -> Self {
        let mut count = vec![0_u32; keys];
        for key in key {
            count[*key as usize] += 1;
        }
        let (mut first, mut past, mut start, mut set_of_key) = (Vec::new(), Vec::new(), 0, vec![0; keys]);
        for (key, count) in count.iter().enumerate().filter(|(_, count)| **count > 0) {
            set_of_key[key] = first.len() as u32;
            first.push(start);
            start += count;
            past.push(start);
        }
        let mut at = first.clone();
        let (mut elements, mut location) = (vec![0; key.len()], vec![0; key.len()]);
        let set_of: Vec<u32> = key.iter().map(|key| set_of_key[*key as usize]).collect();
        for (element, set) in set_of.iter().enumerate() {
            let slot = &mut at[*set as usize];
            elements[*slot as usize] = element as u32;
            location[element] = *slot;
            *slot += 1;
        }
        let marked = vec![0; first.len()];
        Self { elements, location, set_of, first, past, marked, touched: Vec::new() }
    }

    fn sets(&self) -> usize {
        self.first.len()
    }

    fn mark(&mut self, element: u32) {
        let set = self.set_of[element as usize] as usize;
        let (from, to) = (self.location[element as usize], self.first[set] + self.marked[set]);
        if from < to {
            return;
        }
        let other = self.elements[to as usize];
        self.elements.swap(from as usize, to as usize);
        (self.location[other as usize], self.location[element as usize]) = (from, to);
        if self.marked[set] == 0 {
            self.touched.push(set as u32);
        }
        self.marked[set] += 1;
    }

    /// Parts the marked elements of each set from the others; the smaller part is the new set.
    fn split(&mut self) {
        while let Some(set) = self.touched.pop() {
            let set = set as usize;
            let middle = self.first[set] + std::mem::take(&mut self.marked[set]);
            if middle == self.past[set] {
                continue;
            }
            let fresh = self.sets() as u32;
            if middle - self.first[set] <= self.past[set] - middle {
                self.first.push(self.first[set]);
                self.past.push(middle);
                self.first[set] = middle;
            } else {
                self.first.push(middle);
                self.past.push(self.past[set]);
                self.past[set] = middle;
            }
            self.marked.push(0);
            for at in self.first[fresh as usize]..self.past[fresh as usize] {
                self.set_of[self.elements[at as usize] as usize] = fresh;
            }
        }
    }
}

/// The coarsest partition of the live states that is finer than `first` and that no transition leaves.
fn refine(machine: &Machine, live: &[bool], first: &[u32]) -> Vec<u32> {
    let keys = first.iter().max().map_or(1, |most| *most as usize + 1);
    let mut blocks = Partition::new(first, keys);
    let (heads, cells) = incoming(machine, |source, target| live[source] && live[target as usize]);
    let class: Vec<u32> = cells.iter().map(|cell| *cell % machine.stride as u32).collect();
    let tail: Vec<u32> = cells.iter().map(|cell| *cell / machine.stride as u32).collect();
    let mut cords = Partition::new(&class, machine.stride);
    // Each set of transitions, and each block but one, splits all others.
    let (mut block, mut cord) = (1, 0);
    while cord < cords.sets() {
        for at in cords.first[cord]..cords.past[cord] {
            blocks.mark(tail[cords.elements[at as usize] as usize]);
        }
        blocks.split();
        cord += 1;
        while block < blocks.sets() {
            for at in blocks.first[block]..blocks.past[block] {
                let state = blocks.elements[at as usize] as usize;
                for arrow in heads[state]..heads[state + 1] {
                    cords.mark(arrow);
                }
            }
            cords.split();
            block += 1;
        }
    }
    blocks.set_of
}

/// One state for each block that is reached, numbered breadth first with bytes ascending, and as few byte classes as
/// the transitions need.
fn renumber(machine: &Machine, live: &[bool], block: &[u32]) -> Machine {
    let mut number = vec![0_u32; block.len() + 1];
    // The state that stands for each number; 0 is dead and looked at no further.
    let mut list: Vec<u32> = vec![u32::MAX];
    let mut rows: Vec<u32> = vec![0; machine.stride];
    let visit = |state: u32, list: &mut Vec<u32>, number: &mut Vec<u32>| {
        if state as usize >= live.len() || !live[state as usize] {
            return 0;
        }
        let slot = &mut number[block[state as usize] as usize];
        if *slot == 0 {
            *slot = list.len() as u32;
            list.push(state);
        }
        *slot
    };
    let start = visit(machine.start, &mut list, &mut number);
    let mut order: Vec<usize> = Vec::new();
    let mut seen = vec![false; machine.stride];
    for class in machine.classes.iter() {
        if !std::mem::replace(&mut seen[usize::from(*class)], true) {
            order.push(usize::from(*class));
        }
    }
    let mut labels = vec![Label::NONE];
    let mut at = 1;
    while at < list.len() {
        let state = list[at] as usize;
        labels.push(machine.labels[state]);
        let base = rows.len();
        rows.resize(base + machine.stride, 0);
        for class in &order {
            rows[base + class] = visit(machine.rows[state * machine.stride + class], &mut list, &mut number);
        }
        at += 1;
    }
    compact(machine, &order, rows, labels, start)
}

/// Joins byte classes whose columns are equal.
fn compact(machine: &Machine, order: &[usize], rows: Vec<u32>, labels: Vec<Label>, start: u32) -> Machine {
    let wide = machine.stride;
    let mut kept: Vec<usize> = Vec::new();
    let mut class_of = vec![0_u8; wide];
    for class in order {
        let equal = |other: &usize| (0..labels.len()).all(|s| rows[s * wide + class] == rows[s * wide + *other]);
        class_of[*class] = kept.iter().position(equal).unwrap_or_else(|| {
            kept.push(*class);
            kept.len() - 1
        }) as u8;
    }
    let classes = Box::new(machine.classes.map(|class| class_of[usize::from(class)]));
    let narrow = rows.chunks_exact(wide).flat_map(|row| kept.iter().map(|class| row[*class])).collect();
    Machine { classes, stride: kept.len(), rows: narrow, labels, start }
}
