use super::*;
use crate::daemon::compiler::tests::{HEAD, compiler};
use std::fs;
use std::path::PathBuf;

struct Place {
    root: PathBuf,
    applied: Applied,
    compiler: Compiler,
}

impl Place {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-change-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let applied = Applied::open(&root).expect("directory can be made");
        fs::create_dir_all(root.join("policies")).expect("directory can be made");
        let compiler = compiler(&root.join("policies"), "/run/x");
        Self { root, applied, compiler }
    }

    fn change(&self, change: &Change) -> Result<Written, Refused> {
        carry_out(&self.applied, &self.compiler, change, &mut Known::default())
    }

    fn apply(&self, name: &str, spec: &str) -> Result<Written, Refused> {
        self.change(&Change::Apply(name.to_owned(), body(name, spec)))
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.applied.path(name).expect("is a name")).ok()
    }
}

fn body(name: &str, spec: &str) -> api::ApplyPolicy {
    let text = format!("{HEAD}metadata: {{name: {name}}}\nspec: {{{spec}}}\n");
    api::ApplyPolicy { path: "mine.yaml".to_owned(), text }
}

#[test]
fn what_is_refused_leaves_the_file_as_it_was_and_names_the_senders_document() {
    let place = Place::new("refused");
    assert!(place.apply("a", "").is_ok_and(|written| written.before.is_none()));
    let first = place.file("a");
    let refused = place.apply("a", "fils: []").err().expect("must be refused");
    assert!(
        matches!(&refused.refusal, Refusal::Invalid(text) if text.contains("mine.yaml:4") && text.contains("fils"))
    );
    assert!(refused.messages.iter().all(|message| message.contains("mine.yaml")), "{:?}", refused.messages);
    assert_eq!(place.file("a"), first);
    let written = place.apply("a", "mode: audit").ok().expect("is valid");
    assert_eq!(written.before.map(|bytes| String::from_utf8(bytes).expect("is text")), first);
    assert_ne!(place.file("a"), first);
    fs::remove_dir_all(place.root).expect("directory can be removed");
}

#[test]
fn a_name_that_is_another_ones_or_no_name_is_refused() {
    let place = Place::new("names");
    let other = place.change(&Change::Apply("b".to_owned(), body("a", ""))).err().expect("must be refused");
    assert!(matches!(&other.refusal, Refusal::Invalid(text) if text.contains("name is a, and b was asked for")));
    for name in ["../a", "x.cases", ""] {
        assert!(place.apply(name, "").is_err_and(|refused| matches!(refused.refusal, Refusal::Invalid(_))));
    }
    let hostile = api::ApplyPolicy { path: "a\nb".to_owned(), ..body("a", "") };
    assert!(place.change(&Change::Apply("a".to_owned(), hostile)).is_err());
    assert_eq!((place.file("a"), place.file("b")), (None, None));
    fs::remove_dir_all(place.root).expect("directory can be removed");
}

#[test]
fn only_what_was_applied_can_be_deleted() {
    let place = Place::new("deleted");
    place.apply("a", "").ok().expect("is valid");
    assert!(place.change(&Change::Delete("a".to_owned())).is_ok_and(|written| written.before.is_some()));
    let again = place.change(&Change::Delete("a".to_owned())).err().expect("it is gone");
    assert!(matches!(again.refusal, Refusal::NotFound(_)));
    fs::remove_dir_all(place.root).expect("directory can be removed");
}

#[test]
fn what_was_applied_includes_what_was_applied_and_keeps_its_name() {
    let place = Place::new("includes");
    let policies = place.root.join("policies");
    let file = |name: &str| fs::write(policies.join(format!("{name}.yaml")), body(name, "").text);
    file("base").expect("file can be written");
    assert!(place.apply("first", "include: [base]").is_ok() && place.apply("second", "include: [first]").is_ok());
    assert!(place.apply("third", "include: [none]").is_err());
    file("second").expect("file can be written");
    let directories = [place.applied.directory().to_owned(), policies];
    let read = catalogue::read(&directories, &place.compiler, &Known::default());
    let sources: Vec<_> = read.sources().collect();
    assert_eq!(sources.len(), 3, "{sources:?}");
    assert!(sources.contains(&("second", place.applied.directory().join("second.yaml").to_str().expect("is text"))));
    fs::remove_dir_all(place.root).expect("directory can be removed");
}
