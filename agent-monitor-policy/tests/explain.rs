//! Images and what is read from them: explanations, suggestions, and bytes that are no image.

mod common;

use agent_monitor_common::class::{Class, Reason, file};
use agent_monitor_policy::{
    ImageError, ImageView, NoLibrary, ObjectText, Protected, describe_object, explain, is_of_another_process,
    operation, suggest,
};
use common::{Policies, answer, ask, compiled, image};

const SPEC: &str = r#"
  files:
    - allow: [read, write]
      paths: ["/w/**"]
      reason: the "workspace"
    - deny: [write]
      paths: ["/w/x*"]
  exec:
    - allow: ["/bin/sh"]
"#;

#[test]
fn a_rule_is_found_from_what_an_event_carries() {
    let image = image(SPEC);
    let view = ImageView::parse(image.as_bytes()).expect("valid");
    assert_eq!((view.policy_name(), view.generation()), ("outer", 1));
    let labels = |class, path: &[u8]| {
        let own = agent_monitor_common::decide::OwnEntry::default();
        agent_monitor_common::decide::rights(image.as_bytes(), class, path, own).labels
    };
    let rule = view.rule(Class::File, labels(Class::File, b"/w/a"), file::READ, Reason::AllowRule).expect("a rule");
    assert_eq!((rule.name, rule.reason, rule.line), ("files[0]", Some("the \"workspace\""), 7));
    let rule = view.rule(Class::File, labels(Class::File, b"/w/x"), file::READ | file::WRITE, Reason::DenyRule);
    assert_eq!(rule.map(|rule| rule.name), Some("files[1]"));
    // A mapping that the right to execute implies carries the label of that class.
    let rule = view.rule(Class::File, labels(Class::Exec, b"/bin/sh"), file::MAP_EXEC, Reason::AllowRule);
    assert_eq!(rule.map(|rule| rule.name), Some("exec[0]"));
    assert_eq!(view.rule(Class::File, [0; 3], file::READ, Reason::NoRule), None);
    assert_eq!(view.rule(Class::File, [9999; 3], file::READ, Reason::DenyRule), None);
}

#[test]
fn the_suggested_rule_allows_what_was_denied() {
    let questions = [
        "file:read /etc/shadow",
        "file:read,write,create /a",
        "file:write /w/b",
        "file:delete /w/b",
        "file:read /a*b?c[d]{e,f}\\g$h",
        "file:read /a\u{1b}\n\"'b\u{e9}",
        "file:read /",
        "file:read /proc/self/environ",
        "file:read /proc/thread-self/environ",
        "file:read /proc/1/environ",
        "file:map-exec anon:memfd",
        "file:rename /a /b",
        "file:rename,delete /a /b",
        "file:link /a /b",
        "file:rename /a/ /b",
        "exec /usr/bin/a'b",
        "exec anon:memfd",
        "network:connect tcp:10.1.2.3:443",
        "network:connect,send udp:[2001:db8::1]:53",
        "network:connect tcp:169.254.169.254:80",
        "network:connect icmp:10.1.2.3",
        "network:listen tcp:0.0.0.0:8080",
        "network:listen tcp:127.0.0.1:0",
        "network:connect unix:/run/a*b",
        "network:send unix:@a*\\b",
        "network:create netlink-route",
        "privilege signal-any",
        "capability CAP_CHOWN",
    ];
    let before = image("  {}");
    for question in questions {
        let suggestion = ask(&before, question).suggestion.unwrap_or_else(|| panic!("{question}: nothing suggested"));
        let spec: String = suggestion.lines().map(|line| format!("  {line}\n")).collect();
        let compiled = compiled(&spec, &NoLibrary, &[]).unwrap_or_else(|error| panic!("{question}:\n{error}"));
        let after = compiled.policy.image(1, &[]).expect("small");
        assert!(answer(&after, question).starts_with("allow "), "{question}: {suggestion}");
    }
}

#[test]
fn only_what_is_missing_is_suggested_and_nothing_where_nothing_helps() {
    let image = image(SPEC);
    let suggestion = |question: &str| ask(&image, question).suggestion;
    assert_eq!(
        suggestion("file:read,delete /w/a").as_deref(),
        Some("files:\n  - allow: [delete]\n    paths: [\"/w/a\"]\n")
    );
    for question in [
        "file:write /w/x",
        "file:read /w/a",
        "file:read /run/agent-monitor/x",
        "privilege cgroup-write",
        "network:connect 47:1.1.1.1:0",
    ] {
        let found = suggestion(question);
        // A protocol without a name needs a rule for all protocols.
        assert_eq!(found.is_some(), question.contains("47:"), "{question}: {found:?}");
    }
}

#[test]
fn an_event_gets_the_same_suggestion() {
    let of = |class, access, object: &[u8], new: &[u8]| suggest(class, access, object, new, 311).unwrap_or_default();
    assert_eq!(of(Class::File, file::READ, b"/a\xff", b""), "files:\n  - allow: [read]\n    paths: ['/a\\xff']\n");
    assert_eq!(
        of(Class::File, file::READ, b"/proc/311/status", b""),
        "files:\n  - allow: [read]\n    paths: [\"/proc/self/status\"]\n"
    );
    assert_eq!(
        of(Class::File, file::RENAME | file::DELETE, b"/a", b"/b"),
        "files:\n  - allow: [delete, rename]\n    paths: [\"/a\", \"/b\"]\n"
    );
    assert_eq!(of(Class::Capability, 1, &[0], b""), "capabilities:\n  - allow: [CAP_CHOWN]\n");
    assert_eq!(of(Class::Network, 1, b"c\x02", b""), "network:\n  - allow: [create]\n    sockets: [inet]\n");
    assert_eq!(suggest(Class::Network, 1, b"c\xff", b"", 311), None);
    assert_eq!(suggest(Class::Network, 2, b"4", b"", 311), None);
    assert_eq!(suggest(Class::Privilege, 1, b"\xff", b"", 311), None);
    assert_eq!(suggest(Class::File, 1, b"", b"", 311), None);
}

#[test]
fn entries_of_other_processes_get_no_suggestion() {
    let of = |path: &str| suggest(Class::File, file::READ, path.as_bytes(), b"", 311);
    for path in ["/proc/312/status", "/proc/1", "/proc/31/status", "/proc/3111/status", "/proc/99999999999/stat"] {
        assert!(is_of_another_process(path.as_bytes(), 311), "{path}");
        assert_eq!(of(path), None, "{path}");
    }
    for (path, pattern) in [("/proc/311/task/5/stat", "/proc/self/task/5/stat"), ("/proc/311", "/proc/self")] {
        assert!(!is_of_another_process(path.as_bytes(), 311), "{path}");
        assert_eq!(of(path), Some(format!("files:\n  - allow: [read]\n    paths: [\"{pattern}\"]\n")));
    }
    for path in ["/proc/stat", "/proc/3a/x", "/w/proc/1/stat"] {
        assert!(of(path).is_some_and(|rule| rule.contains(path)), "{path}");
    }
}

#[test]
fn operands_are_described_as_they_are_written() {
    for text in ["tcp:10.1.2.3:443", "udp:[2001:db8::1]:53", "47:10.0.0.1:0", "unix:/run/x", "unix:@name"] {
        let operation = operation::parse("network:connect", text, None).expect("right");
        assert_eq!(describe_object(Class::Network, &operation.object).to_string(), text);
    }
    assert_eq!(describe_object(Class::Network, b"c\x82").to_string(), "netlink-route");
    assert_eq!(describe_object(Class::Privilege, &[1]).to_string(), "signal-same-agent");
    assert_eq!(describe_object(Class::Capability, &[21]).to_string(), "CAP_SYS_ADMIN");
    assert_eq!(describe_object(Class::File, b"/a\n\\\xff\xc3\xa9").to_string(), "/a\\x0a\\\\\\xff\u{e9}");
    assert_eq!(describe_object(Class::Network, b"4\x06\x00").to_string(), "4\\x06\\x00");
    assert!(matches!(describe_object(Class::Network, b"zz"), ObjectText::Unknown(_)));
}

#[test]
fn wrong_operations_say_what_would_be_right() {
    let table = [
        ("fil:read", "/a", None, "unknown class `fil` of operations: did you mean `file`?"),
        ("file", "/a", None, "operation `file` has no access"),
        ("file:reed", "/a", None, "unknown access `reed` of the class file: did you mean `read`?"),
        ("file:all", "/a", None, "`file:all` is no operation"),
        ("exec:use", "/a", None, "`exec` has no accesses"),
        ("file:read", "a", None, "`a` is not absolute"),
        ("file:read", "/a/../b", None, "is no resolved path"),
        ("file:read", "//a", None, "is no resolved path"),
        ("file:read", "/a//", None, "is no resolved path"),
        ("file:read", "anon:x", None, "is no kind of nameless file"),
        ("file:read", "/a", Some("/b"), "has no new object"),
        ("file:rename", "/a", None, "`file:rename` needs a new object"),
        ("file:rename,read", "/a", Some("/b"), "`rename` goes with no other access than `delete`"),
        ("file:rename,link", "/a", Some("/b"), "a rename is no link"),
        ("network:connect", "10.1.2.3", None, "is no object of the network"),
        ("network:connect", "tcp:10.1.2.3", None, "is not a port"),
        ("network:connect", "tcp:10.1.2.3:0443", None, "`0443` is not a port"),
        ("network:connect", "tcp:2001:db8::1:443", None, "has no brackets"),
        ("network:connect", "tcp:[10.1.2.3]:443", None, "is no address with a port"),
        ("network:connect", "tcq:10.1.2.3:1", None, "unknown protocol `tcq`: did you mean `tcp`?"),
        ("network:connect", "unix:run", None, "`run` is not absolute"),
        ("network:create", "inet5", None, "unknown family of sockets `inet5`"),
        ("network:create,connect", "inet", None, "`create` goes with no other access"),
        ("network:listen,connect", "tcp:1.1.1.1:1", None, "`listen` goes with no other access"),
        ("privilege", "bfp", None, "unknown privilege `bfp`: did you mean `bpf`?"),
        ("capability", "CAP_SYSADMIN", None, "did you mean `CAP_SYS_ADMIN`?"),
        ("syscall", "muont", None, "unknown system call `muont`: did you mean `mount`?"),
        ("syscall", "mmap2", None, "unknown system call `mmap2`"),
        ("syscall", "@mount", None, "is a group: ask about one of its calls"),
        ("syscall", "i386:mount", None, "write it like `i386:20`"),
        ("syscall:use", "mount", None, "`syscall` has no accesses"),
    ];
    for (words, object, new, expected) in table {
        let error = operation::parse(words, object, new).expect_err(words);
        assert!(error.contains(expected), "{words} {object}: {error}");
    }
    let long = format!("unix:@{}", "a".repeat(108));
    assert!(operation::parse("network:connect", &long, None).expect_err("long").contains("108 bytes"));
}

#[test]
fn equal_policies_give_equal_images() {
    assert_eq!(image(SPEC).as_bytes(), image(SPEC).as_bytes());
    let policy = compiled(SPEC, &NoLibrary, &[]).expect("right").policy;
    let (one, two) = (policy.image(1, &[]).expect("small"), policy.image(2, &[]).expect("small"));
    assert_eq!(one.as_bytes()[16..], two.as_bytes()[16..], "they differ in the generation only");
    assert_eq!(one.as_bytes().len() % 8, 0);
}

#[test]
fn an_image_that_is_padded_as_in_the_kernel_is_read() {
    let image = image(SPEC);
    let mut bytes = image.as_bytes().to_vec();
    bytes.resize(64 << 10, 0);
    let view = ImageView::parse(&bytes).expect("valid");
    assert_eq!(view.as_bytes(), image.as_bytes());
}

#[test]
fn protected_paths_must_be_resolved() {
    let policy = compiled(SPEC, &NoLibrary, &[]).expect("right").policy;
    for path in ["relative", "/a/../b", "/a//b", "", "/a/./b"] {
        let error = policy.image(1, &[Protected::Tree(path.to_owned())]).expect_err(path);
        assert!(matches!(error, ImageError::Protected { .. }), "{error}");
    }
    let tree = |path: &str| Protected::Tree(path.to_owned());
    let image = policy.image(1, &[tree("/w/*/"), tree("/")]).expect("right");
    assert_eq!(answer(&image, "file:read /w/a"), "deny builtin:monitor", "the root holds everything");
    let image = policy.image(1, &[tree("/w/*")]).expect("right");
    assert_eq!(answer(&image, "file:read /w/a"), "allow files[0]", "patterns are taken literally");
    assert_eq!(answer(&image, "file:read /w/*"), "deny builtin:monitor");
}

#[test]
fn a_protected_prefix_holds_for_longer_names_and_what_is_below_them() {
    let policy = compiled(SPEC, &NoLibrary, &[]).expect("right").policy;
    let image = policy.image(1, &[Protected::Prefix("/w/log".to_owned())]).expect("right");
    for path in ["/w/log", "/w/log.1", "/w/log-2026.gz", "/w/log/a", "/w/log.d/a/b"] {
        assert_eq!(answer(&image, &format!("file:read {path}")), "deny builtin:monitor", "{path}");
    }
    for path in ["/w/lo", "/w/lo.log", "/w/x/log"] {
        assert_eq!(answer(&image, &format!("file:read {path}")), "allow files[0]", "{path}");
    }
    let error = policy.image(1, &[Protected::Prefix("w/log".to_owned())]).expect_err("is relative");
    assert!(matches!(error, ImageError::Protected { .. }), "{error}");
}

#[test]
fn bytes_that_are_no_image_are_refused_or_harmless() {
    let image = image(SPEC);
    let operation = operation::parse("file:read,write", "/w/x", None).expect("right");
    assert_eq!(explain(b"", &operation).reason, "fault:no-image");
    for length in 0..image.as_bytes().len() {
        assert!(ImageView::parse(&image.as_bytes()[..length]).is_err(), "cut to {length}");
    }
    let mut changed = image.as_bytes().to_vec();
    let mut refused = 0;
    for at in 0..changed.len() {
        // All bytes of the header and of what follows it, then some of the many.
        if at > 1200 && at % 7 != 0 {
            continue;
        }
        for flip in [1, 0x80, 0xff] {
            changed[at] ^= flip;
            match ImageView::parse(&changed) {
                Ok(view) => drop(view.explain(&operation)),
                Err(_) => refused += 1,
            }
            changed[at] ^= flip;
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn a_rule_without_a_place_in_the_notes_is_not_invented() {
    let library = Policies(&[("base", "  files: [{allow: [read], paths: [/a]}]")]);
    let policy = compiled("  include: [base]", &library, &[]).expect("right").policy;
    let image = policy.image(3, &[]).expect("small");
    let explained = ask(&image, "file:read /a");
    assert_eq!(
        (explained.rule.as_deref(), explained.rule_reason, explained.rule_line),
        (Some("base/files[0]"), None, Some(5))
    );
}
