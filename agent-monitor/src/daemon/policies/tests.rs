use super::*;

fn empty() -> Candidate {
    Candidate::new(&Policy::empty(), &[]).expect("the empty policy has an image")
}

#[test]
fn an_image_is_given_its_generation() {
    let image = empty().image(7);
    assert_eq!(ImageView::parse(&image).expect("is an image").generation(), 7);
}

#[test]
fn a_policy_that_the_kernel_has_is_told_from_one_that_differs() {
    let image = empty().image(7);
    let view = ImageView::parse(&image).expect("is an image");
    let mut policies = Policies::default();
    policies.put(3, view.generation(), Source::Removed, Arc::new(Candidate::restored(&view, None)));
    assert!(policies.unchanged(3, &empty()));
    assert_eq!(policies.next_generation("empty"), 8);
    assert_eq!((Source::from_name("agent"), Source::from_name("")), (Source::Agent, Source::Removed));
}

#[test]
fn slots_are_used_again_as_late_as_possible() {
    let mut policies = Policies::default();
    let first = policies.free_slot().expect("all are free");
    assert_ne!(first, EMPTY_SLOT);
    policies.put(first, 1, Source::Agent, Arc::new(empty()));
    policies.remove(first);
    let second = policies.free_slot().expect("all are free");
    assert_ne!(first, second);
    for _ in 0..2 * POLICIES {
        let slot = policies.free_slot().expect("all are free");
        assert_ne!(slot, EMPTY_SLOT);
    }
}

#[test]
fn generations_count_by_name_and_outlive_the_policy() {
    let mut policies = Policies::default();
    assert_eq!(
        (policies.next_generation("a"), policies.next_generation("a"), policies.next_generation("b")),
        (1, 2, 1)
    );
}

#[test]
fn names_of_policies_that_are_gone_are_forgotten_and_their_generations_are_not_given_again() {
    let mut policies = Policies::default();
    policies.put(3, 2, Source::Directory, Arc::new(empty()));
    assert_eq!((policies.next_generation("gone"), policies.next_generation("gone")), (1, 2));
    for number in 0..2 * MOST_NAMES {
        policies.next_generation(&format!("session-{number}"));
    }
    assert!(policies.generations.len() <= MOST_NAMES, "{} names are known", policies.generations.len());
    let again = policies.next_generation("gone");
    assert!(again > 2, "generation {again} is given again");
    assert_eq!(policies.next_generation("empty"), 3);
    let mut numbers = Numbers::default();
    policies.note(&mut numbers);
    let mut next = Policies::default();
    next.restore(&numbers);
    assert_eq!(next.next_generation("gone"), again + 1);
    assert!(next.next_generation("session-0") > 1, "generation 1 is given again");
}

#[test]
fn a_policy_is_told_from_one_that_protects_other_paths() {
    let mut policies = Policies::default();
    policies.put(3, 1, Source::Directory, Arc::new(empty()));
    assert!(policies.unchanged(3, &empty()));
    let other = Candidate::new(&Policy::empty(), &[Protected::Tree("/run/x".to_owned())]).expect("has an image");
    assert!(!policies.unchanged(3, &other) && !policies.unchanged(4, &empty()));
    assert!(policies.same(&empty(), &Source::Directory).is_some() && policies.same(&empty(), &Source::Agent).is_none());
}

#[test]
fn a_policy_whose_file_is_gone_is_found_by_its_name_unless_an_agent_may_have_brought_it() {
    let with = |text: &str, variables: &[&str]| {
        let variables = variables.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        Arc::new(Candidate { text: text.to_owned(), variables, ..empty() })
    };
    let mut policies = Policies::default();
    policies.put(3, 1, Source::Removed, with("", &[]));
    policies.put(4, 1, Source::Removed, with("text", &["W"]));
    policies.put(5, 1, Source::Agent, with("text", &[]));
    assert!(policies.removed("empty").is_none());
    policies.put(6, 1, Source::Removed, with("text", &[]));
    assert_eq!(policies.removed("empty").map(|one| one.slot), Some(6));
    assert!(policies.removed("other").is_none() && policies.named("empty").is_none());
}
