//! Machines are minimal, canonical, and rights classes are what they say.

use super::{Budget, Label, Language, Machine, classes_of_states, leaf};
use crate::pattern::{PatternError, Variables, parse_path};
use crate::random::Random;
use std::collections::{HashMap, HashSet};

struct Nothing;

impl Variables for Nothing {
    fn value(&self, _: &str) -> Result<Option<String>, PatternError> {
        Ok(None)
    }
}

fn of(pattern: &str, label: Label) -> Machine {
    let graph = parse_path(pattern, &Nothing).expect("right");
    leaf(&graph, Language::Path, label, &mut Budget(Budget::POLICY)).expect("small")
}

fn random_union(random: &mut Random) -> Machine {
    let machines: Vec<Machine> = (0..1 + random.below(4))
        .map(|number| of(&random.pattern(), Label::of_rule(random.below(3) > 0, number as u32, 3)))
        .collect();
    Machine::union(&machines, &mut Budget(Budget::POLICY)).expect("small")
}

/// Whether some string tells two states apart, if all that is seen of a state is `seen`: by trying all, breadth first.
fn told_apart<S: PartialEq>(machine: &Machine, a: u32, b: u32, seen: &impl Fn(Label) -> S) -> bool {
    let (mut known, mut todo) = (HashSet::from([(a, b)]), vec![(a, b)]);
    while let Some((a, b)) = todo.pop() {
        if seen(machine.label(a)) != seen(machine.label(b)) {
            return true;
        }
        for class in 0..machine.stride {
            let next = |state: u32| machine.rows[state as usize * machine.stride + class];
            if known.insert((next(a), next(b))) {
                todo.push((next(a), next(b)));
            }
        }
    }
    false
}

#[test]
fn no_two_states_of_a_machine_are_equivalent() {
    let mut random = Random(7);
    for _ in 0..150 {
        let machine = random_union(&mut random);
        for a in 0..machine.states() as u32 {
            for b in 0..a {
                assert!(told_apart(&machine, a, b, &|label| label), "states {a} and {b} of {machine:?}");
            }
        }
    }
}

#[test]
fn rights_classes_are_equal_exactly_where_rights_are_for_all_that_follows() {
    let mut random = Random(11);
    for _ in 0..150 {
        let machine = random_union(&mut random);
        let classes = classes_of_states(&machine, |label| label.allowed());
        for a in 0..machine.states() as u32 {
            for b in 0..a {
                let equal = classes[a as usize] == classes[b as usize];
                let apart = told_apart(&machine, a, b, &|label| label.allowed());
                assert_eq!(equal, !apart, "states {a} and {b} of {machine:?}");
            }
        }
    }
}

#[test]
fn the_order_of_unions_does_not_change_the_machine() {
    let mut random = Random(13);
    for _ in 0..150 {
        let mut machines: Vec<Machine> =
            (0..4).map(|number| of(&random.pattern(), Label::of_rule(number != 1, number, 1))).collect();
        let mut budget = Budget(Budget::POLICY);
        let one = Machine::union(&machines, &mut budget).expect("small");
        machines.reverse();
        let other = Machine::union(&machines, &mut budget).expect("small");
        assert_eq!((&one.classes, &one.rows, &one.labels), (&other.classes, &other.rows, &other.labels));
    }
}

#[test]
fn a_hundred_patterns_that_begin_anywhere_stay_small_in_one_rule() {
    let label = Label::of_rule(false, 0, 1);
    let machines: Vec<Machine> = (0..100).map(|i| of(&format!("**/.secret{i}/**"), label)).collect();
    let united = Machine::union(&machines, &mut Budget(Budget::POLICY)).expect("small");
    assert!(united.states() < 60, "{}", united.states());
}

#[test]
fn a_byte_before_a_machine_is_matched_first() {
    let machine = of("/a", Label::BUILTIN).after(b'u');
    assert_eq!(machine.label(machine.walk(b"u/a")), Label::BUILTIN);
    assert_eq!(machine.label(machine.walk(b"/a")), Label::NONE);
    assert!(Machine::empty().after(b'u').is_empty());
}

#[test]
fn work_is_bounded_by_the_budget() {
    let machines: Vec<Machine> =
        (0..12).map(|i| of(&format!("**/{i}/**/x{i}/**/y"), Label::of_rule(true, i, 1 << (i % 8)))).collect();
    assert!(Machine::union(&machines, &mut Budget(10_000)).is_err());
}

#[test]
fn a_rule_is_hidden_only_where_all_of_it_is_denied() {
    let hidden = |allow: &str, access: u16, denials: &[(&str, u16)]| {
        let mut budget = Budget(Budget::POLICY);
        let machines: Vec<Machine> =
            denials.iter().zip(1..).map(|((deny, access), i)| of(deny, Label::of_rule(false, i, *access))).collect();
        let denials = Machine::union(&machines, &mut budget).expect("small");
        of(allow, Label::of_rule(true, 0, access)).hidden_by(&denials, access, &mut budget).expect("small")
    };
    let table: HashMap<(&str, u16), bool> = HashMap::from([
        (("/a/b", 1), true),
        (("/a/b", 3), false),
        (("/a", 1), false),
        (("/a/**", 1), true),
        (("/**", 1), false),
        (("**/.env", 1), false),
        (("/c/.env", 3), true),
    ]);
    for ((allow, access), expected) in table {
        let denials = [("/a/**", 1), ("/c/**", 1), ("/c/*", 2)];
        assert_eq!(hidden(allow, access, &denials), expected, "{allow} {access}");
    }
}
