//! Rules of system calls, and the calls of a policy without any.

use agent_monitor_common::class::{SyscallEnforcement, Verdict};
use agent_monitor_common::syscall::{self, Abi};
use agent_monitor_policy::{Document, Explanation, ImageView, Library, Options, compile, explain, operation};

/// Included as `calls`.
struct Calls;

impl Library for Calls {
    fn find(&self, name: &str, _beside: &str) -> Result<Option<Document>, String> {
        let text = text("calls", "syscalls: [{allow: [read]}]");
        Ok((name == "calls").then(|| Document { path: "calls.yaml".to_owned(), text }))
    }
}

fn text(name: &str, spec: &str) -> String {
    format!("apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn image(spec: &str) -> Vec<u8> {
    let document = Document { path: "p.yaml".to_owned(), text: text("p", spec) };
    let compiled = compile(document, &Calls, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
    compiled.policy.image(1, &[]).expect("an image").as_bytes().to_vec()
}

fn ask(image: &[u8], call: &str) -> Explanation {
    explain(image, &operation::parse("syscall", call, None).unwrap_or_else(|error| panic!("{error}")))
}

/// Verdict, reason and rule of a call.
fn answer(image: &[u8], call: &str) -> (Verdict, String, Option<String>) {
    let Explanation { verdict, reason, rule, .. } = ask(image, call);
    (verdict, reason, rule)
}

fn allowed(rule: &str) -> (Verdict, String, Option<String>) {
    (Verdict::Allow, "allow_rule".to_owned(), Some(rule.to_owned()))
}

fn no_rule() -> (Verdict, String, Option<String>) {
    (Verdict::Deny, "no_rule".to_owned(), None)
}

#[test]
fn a_policy_without_the_key_has_the_calls_of_an_agent() {
    let image = image("exec: [{allow: [/bin/ls]}]");
    assert_eq!(answer(&image, "openat"), allowed("@agent"));
    assert_eq!(answer(&image, "mount"), no_rule());
    assert_eq!(answer(&image, "i386:3"), no_rule());
    let view = ImageView::parse(&image).expect("an image");
    assert!(!view.has_syscalls());
    assert_eq!(view.syscall_enforcement(), SyscallEnforcement::Launch);
}

#[test]
fn a_policy_with_the_key_denies_what_it_does_not_allow() {
    for spec in ["syscalls: []", "syscalls: [{deny: [mount]}]"] {
        let image = image(spec);
        let view = ImageView::parse(&image).expect("an image");
        assert!(view.has_syscalls());
        let numbers = 0..=u32::from(syscall::LAST) + 1;
        assert!(!numbers.into_iter().any(|number| view.allows_syscall(Abi::Native, number)), "{spec}");
    }
}

#[test]
fn the_key_of_an_included_document_counts() {
    let image = image("include: [calls]");
    assert!(ImageView::parse(&image).expect("an image").has_syscalls());
    assert_eq!(answer(&image, "read"), allowed("calls/syscalls[0]"));
    assert_eq!(answer(&image, "write"), no_rule());
}

#[test]
fn groups_are_their_members_and_denials_win() {
    let image =
        image("syscalls: [{allow: ['@agent', io_uring_setup, '@mount']}, {deny: ['@mount', personality, clone3]}]");
    assert_eq!(answer(&image, "io_uring_setup"), allowed("syscalls[0]"));
    assert_eq!(answer(&image, "listns"), no_rule());
    for call in ["mount", "open_tree_attr", "personality", "clone3"] {
        assert_eq!(answer(&image, call), (Verdict::Deny, "deny_rule".to_owned(), Some("syscalls[1]".to_owned())));
    }
    let view = ImageView::parse(&image).expect("an image");
    assert!(view.allows_syscall(Abi::Native, 0) && !view.allows_syscall(Abi::I386, 3));
}

#[test]
fn calls_of_other_interfaces_need_the_group_foreign() {
    let image = image("syscalls: [{allow: [read, '@foreign']}]");
    for call in ["i386:3", "x32:520", "i386:65535"] {
        assert_eq!(answer(&image, call), allowed("syscalls[0]"));
    }
    assert_eq!(answer(&image, "write"), no_rule());
}

#[test]
fn known_is_every_call_with_a_name() {
    let image = image("syscalls: [{allow: ['@known']}]");
    for (_, name) in syscall::all() {
        assert_eq!(answer(&image, name), allowed("syscalls[0]"), "{name}");
    }
    assert_eq!(answer(&image, "471"), no_rule());
}

#[test]
fn the_rule_that_is_suggested_allows_the_call() {
    let without = image("syscalls: []");
    for (call, rule) in [("mount", "allow: [mount]"), ("i386:3", "allow: [\"@foreign\"]")] {
        let suggestion = ask(&without, call).suggestion.expect("a rule");
        assert!(suggestion.contains(rule), "{suggestion}");
        let spec: String = suggestion.lines().map(|line| format!("  {line}\n")).collect();
        let text = text("p", "").replace("spec: {}\n", &format!("spec:\n{spec}"));
        let document = Document { path: "p.yaml".to_owned(), text };
        let policy = compile(document, &Calls, &Options::default()).unwrap_or_else(|error| panic!("{error}")).policy;
        let image = policy.image(1, &[]).expect("an image");
        assert_eq!(ask(image.as_bytes(), call).verdict, Verdict::Allow);
    }
    assert_eq!(ask(&without, "471").suggestion, None);
}

#[test]
fn the_outermost_document_says_how_calls_are_enforced() {
    let image = image("syscallEnforcement: kill");
    let view = ImageView::parse(&image).expect("an image");
    assert_eq!((view.syscall_enforcement(), view.has_syscalls()), (SyscallEnforcement::Kill, false));
}

#[test]
fn rules_that_let_nothing_be_started_are_warned_of() {
    let warnings = |spec: &str| {
        let document = Document { path: "p.yaml".to_owned(), text: text("p", spec) };
        compile(document, &Calls, &Options::default()).unwrap_or_else(|error| panic!("{error}")).warnings.to_string()
    };
    for spec in ["syscalls: []", "include: [calls]", "syscalls: [{allow: ['@agent']}, {deny: [execve, execveat]}]"] {
        assert!(warnings(spec).contains("no program can be started"), "{spec}: {}", warnings(spec));
    }
    for spec in ["", "syscalls: [{allow: ['@default']}]", "syscalls: [{allow: [execveat]}]"] {
        assert_eq!(warnings(spec), "", "{spec}");
    }
}
