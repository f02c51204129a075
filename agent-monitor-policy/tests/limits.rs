//! Large and hostile policies: what is large compiles in seconds, what is too large is refused with the rules that make
//! it so, in bounded time.

use agent_monitor_common::class::Class;
use agent_monitor_policy::{Diagnostics, Document, NoLibrary, Options, Policy, Protected, compile};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// A policy with these rules for files.
fn policy(rules: &str) -> Document {
    let head = "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: large}\nspec:\n  files:\n";
    Document { path: "large.yaml".to_owned(), text: format!("{head}{rules}") }
}

/// Compiles, and says how long it took. Without optimization it takes some ten times as long.
fn timed(name: &str, document: Document, seconds: u64) -> Result<Policy, Diagnostics> {
    let start = Instant::now();
    let result = compile(document, &NoLibrary, &Options::default()).map(|compiled| compiled.policy);
    let took = start.elapsed();
    let states = result.as_ref().map(|policy| policy.states(Class::File)).unwrap_or_default();
    println!("{name}: {states} states, {took:?}");
    let limit = Duration::from_secs(if cfg!(debug_assertions) { seconds * 15 } else { seconds });
    assert!(took < limit, "{name} took {took:?}");
    result
}

#[test]
fn a_thousand_rules_compile_in_seconds() {
    let mut rules = String::new();
    for i in 0..1000 {
        let effect = if i % 10 == 9 { "deny: [all]" } else { "allow: [read, write]" };
        let path = match i % 4 {
            0 => format!("/srv/team{}/project{i}{{,/**}}", i % 37),
            1 => format!("/srv/team{}/project{i}/*.log", i % 37),
            2 => format!("/srv/data{i}/jobs/**"),
            _ => format!("/srv/team{}/shared/**/cache{i}.db", i % 5),
        };
        writeln!(rules, "    - {effect}\n      paths: [\"{path}\"]").expect("a string");
    }
    let policy = timed("a thousand rules", policy(&rules), 8).unwrap_or_else(|error| panic!("{error}"));
    assert!(policy.image(1, &[Protected::Tree("/run/agent-monitor".to_owned())]).is_ok());
}

#[test]
fn ten_thousand_patterns_in_one_rule_compile_in_seconds() {
    let patterns: Vec<String> = (0..10_000).map(|i| format!("\"/srv/data/{:x}/{i}\"", i * 7919 % 256)).collect();
    let rules = format!("    - allow: [read]\n      paths: [{}]\n", patterns.join(", "));
    timed("ten thousand patterns", policy(&rules), 15).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn variables_make_no_document_longer_than_documents_are() {
    let with = |value: usize, times: usize| {
        let rules = format!("    - allow: [read]\n      paths: [\"{}\"]\n", "${A}".repeat(times));
        let mut document = policy(&rules);
        document.text =
            document.text.replace("spec:\n", &format!("spec:\n  variables: {{A: \"/{}\"}}\n", "a".repeat(value)));
        timed("variables", document, 8).map(drop).map_err(|errors| errors.to_string())
    };
    let error = with(5000, 1).expect_err("is no path's value");
    assert!(error.contains("has 5001 bytes, more than any path"), "{error}");
    let error = with(4000, 100_000).expect_err("would be 400 MB");
    assert!(error.contains("variables make the document longer than 4194304 bytes"), "{error}");
    with(4000, 1).expect("is a path");
}

#[test]
fn a_pattern_set_that_is_too_large_is_refused_with_the_rules_that_make_it_so() {
    // Each rule remembers whether it has been met, and each combination has a label of its own.
    let mut rules = String::new();
    for i in 0..24 {
        writeln!(
            rules,
            "    - allow: [{}]\n      paths: [\"**/a{i}/**/b/**\", \"/x{i}\"]",
            ["read", "write", "create", "delete", "rename", "link", "set-attributes", "map-exec"][i % 8]
        )
        .expect("a string");
    }
    let error = timed("exploding rules", policy(&rules), 30).expect_err("too large").to_string();
    assert!(error.contains("needs a larger automaton for files than the limit of 65535 states"), "{error}");
    assert!(error.contains("made large most of all by `files["), "{error}");
}

#[test]
fn one_pattern_that_is_too_large_is_refused_at_its_place() {
    // The last but n-th byte: two to the power of n states.
    let rules = format!("    - allow: [read]\n      paths: [\"/*a{}\"]\n", "?".repeat(40));
    let error = timed("exploding pattern", policy(&rules), 30).expect_err("too large").to_string();
    assert!(error.contains("pattern needs a larger automaton than the limit of 65535 states"), "{error}");
    assert!(error.contains("large.yaml:7:15"), "{error}");
}

#[test]
fn nested_braces_are_linear() {
    let braces = format!("{}x{}", "{a,".repeat(31), "}".repeat(31));
    let rules = format!("    - allow: [read]\n      paths: [\"/{}\"]\n", [braces.as_str(); 20].join(""));
    timed("nested braces", policy(&rules), 10).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn many_hostile_patterns_are_refused_in_bounded_time() {
    let pattern = |i: usize| format!("\"/*{i}{}\"", "?".repeat(12));
    let mut rules = String::new();
    for i in 0..2000 {
        writeln!(rules, "    - allow: [read]\n      paths: [{}]", pattern(i)).expect("a string");
    }
    timed("hostile patterns", policy(&rules), 30).expect_err("too large");
}

#[test]
fn patterns_that_are_each_too_large_are_refused_in_bounded_time() {
    let pattern = "/***b*/*/*/*a/? (*/*/*??/*/*/*/*,  ?/*/*/*/*";
    let rules: String = (0..200).map(|i| format!("    - allow: [read]\n      paths: [\"{pattern}{i}\"]\n")).collect();
    let error = timed("patterns too large", policy(&rules), 30).expect_err("too large");
    assert!(error.len() > 5, "{error}");
    let last = error.iter().last().expect("an error").to_string();
    assert!(last.contains("policy needs more work to compile than the limit"), "{last}");
}

#[test]
fn a_long_line_of_errors_is_reported_in_bounded_time() {
    let rules = format!("    - allow: [read]\n      paths: [{}]\n", "a,".repeat(1_900_000));
    let error = timed("a long line of errors", policy(&rules), 15).expect_err("wrong");
    let text = error.to_string();
    assert!(text.len() < 1 << 20 && text.ends_with("more\n"), "{}", text.len());
    let key = format!("    - {}: [read]\n", "k".repeat(1 << 20));
    let error = timed("a long key", policy(&key), 5).expect_err("wrong").to_string();
    assert!(error.len() < 10_000, "{}", error.len());
}

#[test]
fn a_document_of_four_mebibytes_is_read_and_one_byte_more_is_refused() {
    let rules = "    - allow: [read]\n      paths: [\"/a\"]\n";
    let mut document = policy(rules);
    document.text.push_str(&"#".repeat(Document::BYTES - document.text.len()));
    assert!(compile(document.clone(), &NoLibrary, &Options::default()).is_ok());
    document.text.push('#');
    let error = compile(document, &NoLibrary, &Options::default()).expect_err("too long").to_string();
    assert!(error.contains("document has 4194305 bytes, more than 4194304"), "{error}");
}
