//! The sentences of the policy language about rules, files and executables.

mod common;

use common::{answer, check, check_image, compiled, image};

#[test]
fn a_matching_deny_wins_else_a_matching_allow_else_deny() {
    check(
        r#"
  files:
    - deny: [write]
      paths: ["/a/secret"]
    - allow: [read, write]
      paths: ["/a/**"]
    - deny: [read]
      paths: ["/a/*/x"]
"#,
        "
        file:read /a/b -> allow files[1]
        file:read /a/secret -> allow files[1]
        file:write /a/secret -> deny files[0]
        file:read,write /a/secret -> deny files[0]
        file:read /a/b/x -> deny files[2]
        file:read /b -> deny no_rule
        file:delete /a/b -> deny no_rule
        ",
    );
}

#[test]
fn an_operation_that_needs_two_accesses_needs_both() {
    check(
        r#"
  files:
    - allow: [read]
      paths: ["/a", "/both"]
    - allow: [write]
      paths: ["/b", "/both"]
"#,
        "
        file:read,write /a -> deny no_rule
        file:read,write /b -> deny no_rule
        file:read,write /both -> allow files[0]
        file:write /both -> allow files[1]
        ",
    );
}

#[test]
fn where_several_rules_match_the_first_is_named() {
    check(
        r#"
  files:
    - allow: [read]
      paths: ["/a/**"]
    - allow: [all]
      paths: ["/a/b"]
    - deny: [delete]
      paths: ["/**"]
    - deny: [all]
      paths: ["/a/c"]
    - deny: [all]
      paths: ["/**/c"]
"#,
        "
        file:read /a/b -> allow files[0]
        file:write /a/b -> allow files[1]
        file:read,write /a/b -> allow files[0]
        file:delete /a/b -> deny files[2]
        file:delete /a/c -> deny files[2]
        file:read /a/c -> deny files[3]
        file:read /x/c -> deny files[4]
        ",
    );
}

#[test]
fn all_means_every_access_of_files() {
    let words = "read write create delete set-attributes map-exec";
    let image = image("  files: [{allow: [all], paths: [/a]}]");
    for word in words.split(' ') {
        assert_eq!(answer(&image, &format!("file:{word} /a")), "allow files[0]");
    }
    assert_eq!(answer(&image, "file:rename /a /a"), "allow files[0]");
}

#[test]
fn a_rename_needs_rename_on_both_names_and_delete_on_one_that_it_replaces() {
    check(
        r#"
  files:
    - allow: [rename]
      paths: ["/a", "/b", "/c"]
    - allow: [delete]
      paths: ["/c"]
    - allow: [all]
      paths: ["/full/**"]
"#,
        "
        file:rename /a /b -> allow files[0]
        file:rename,delete /a /b -> deny no_rule
        file:rename,delete /c /c -> allow files[0]
        file:rename /a /d -> deny no_rule
        file:rename /d /a -> deny no_rule
        file:rename,delete /full/a /full/b -> allow files[2]
        ",
    );
}

#[test]
fn a_link_needs_link_on_both_names_and_create_on_the_new_one() {
    check(
        r#"
  files:
    - allow: [link, create]
      paths: ["/a", "/b"]
    - allow: [link]
      paths: ["/c"]
"#,
        "
        file:link /a /b -> allow files[0]
        file:link,create /a /b -> allow files[0]
        file:link /a /c -> deny no_rule
        file:link /c /a -> deny builtin:more-rights
        file:link /a /d -> deny no_rule
        ",
    );
}

const MOVES: &str = r#"
  files:
    - allow: [all]
      paths: ["/w/**"]
    - allow: [rename, link, create]
      paths: ["/in/**"]
    - allow: [all]
      paths: ["/tmp/**"]
    - deny: [all]
      paths: ["**/private/**"]
    - allow: [all]
      paths: ["/run/**", "/programs/**", "/sockets/**"]
  exec:
    - allow: ["/programs/**"]
  network:
    - allow: [connect]
      to: {unix: ["/sockets/**"]}
"#;

#[test]
fn a_name_may_not_be_changed_to_one_with_more_rights() {
    check(
        MOVES,
        "
        file:rename /w/a /in/a -> allow files[0]
        file:rename /in/a /w/a -> deny builtin:more-rights
        file:link /in/a /w/a -> deny builtin:more-rights
        file:link /w/a /in/a -> allow files[0]
        file:rename /w/a /tmp/a -> allow files[0]
        file:rename /w/a /programs/a -> deny builtin:more-rights
        file:rename /programs/a /w/a -> allow files[0]
        file:rename /w/a /sockets/a -> deny builtin:more-rights
        file:rename /w/private/a /w/a -> deny files[3]
        ",
    );
}

#[test]
fn a_directory_may_be_renamed_only_where_no_path_below_changes_its_rights() {
    check(
        MOVES,
        "
        file:rename /w/a/ /w/b -> allow files[0]
        file:rename /w/a/ /tmp/b -> allow files[0]
        file:rename /w/a/ /w/private -> deny builtin:more-rights
        file:rename /w/private/ /w/a -> deny builtin:more-rights
        file:rename /w/private /w/a -> allow files[0]
        file:rename /w/a/ /in/a -> deny builtin:more-rights
        file:rename /w/a/ /w/x/y/z -> allow files[0]
        ",
    );
}

#[test]
fn a_directory_that_holds_the_monitor_may_not_be_renamed_though_nothing_in_it_may_be_used() {
    let spec = r#"
  files:
    - allow: [rename]
      paths: ["/run", "/other"]
"#;
    check(spec, "file:rename /run/ /other -> deny builtin:more-rights");
}

#[test]
fn what_is_the_monitors_is_denied_whatever_the_rules_say() {
    let spec = r#"
  files: [{allow: [all], paths: ["/**"]}]
  exec: [{allow: ["/**"]}]
  network: [{allow: [connect], to: {unix: ["/**"]}}]
"#;
    check(
        spec,
        "
        file:read /run/agent-monitor -> deny builtin:monitor
        file:read /run/agent-monitor/a/b -> deny builtin:monitor
        file:read /run/agent-monitor2 -> allow files[0]
        exec /run/agent-monitor/x -> deny builtin:monitor
        network:connect unix:/run/agent-monitor/control.sock -> deny builtin:monitor
        network:connect unix:/run/other.sock -> allow network[0]
        file:write /sys/fs/cgroup/agents.slice/cgroup.procs -> deny builtin:cgroup-write
        file:create /sys/fs/cgroup/x -> deny builtin:cgroup-write
        file:read /sys/fs/cgroup/x -> allow files[0]
        file:delete /sys/fs/bpf/agent-monitor/programs -> deny builtin:monitor
        file:rename /w/a /run/agent-monitor/a -> deny builtin:monitor
        ",
    );
}

#[test]
fn proc_self_is_the_own_entry_and_never_another_process() {
    check(
        r#"
  files:
    - allow: [read]
      paths: ["/proc/self/status", "/proc/self", "/proc/thread-self/comm", "/proc/*/stat"]
    - deny: [read]
      paths: ["/proc/self/environ"]
    - allow: [write]
      paths: ["/proc/self/task/*/comm"]
"#,
        "
        file:read /proc/self/status -> allow files[0]
        file:read /proc/1/status -> deny no_rule
        file:read /proc/self -> allow files[0]
        file:read /proc/1 -> deny no_rule
        file:read /proc/thread-self/comm -> allow files[0]
        file:read /proc/self/comm -> deny no_rule
        file:read /proc/self/task/7/comm -> deny no_rule
        file:write /proc/thread-self/comm -> allow files[2]
        file:write /proc/self/task/7/comm -> allow files[2]
        file:write /proc/7/task/7/comm -> deny no_rule
        file:read /proc/self/stat -> allow files[0]
        file:read /proc/1/stat -> allow files[0]
        file:read /proc/self/environ -> deny files[1]
        file:read /proc/1/environ -> deny no_rule
        ",
    );
}

#[test]
fn a_rule_for_all_processes_does_not_lift_a_denial_of_the_own_entry() {
    check(
        r#"
  files:
    - allow: [read]
      paths: ["/proc/**"]
    - deny: [all]
      paths: ["/proc/self/mem"]
"#,
        "
        file:read /proc/self/mem -> deny files[1]
        file:read /proc/1/mem -> allow files[0]
        file:read /proc/thread-self/mem -> allow files[0]
        ",
    );
}

#[test]
fn what_has_no_name_is_matched_by_its_word_only() {
    check(
        r#"
  files:
    - allow: [read, map-exec]
      paths: ["/**", "anon:pipe"]
    - deny: [map-exec]
      paths: ["anon:deleted"]
  exec:
    - allow: ["/**", "anon:memfd"]
"#,
        "
        file:read anon:pipe -> allow files[0]
        file:read anon:memfd -> deny no_rule
        file:map-exec anon:memfd -> allow exec[0]
        file:map-exec anon:other -> deny no_rule
        file:map-exec anon:deleted -> deny files[1]
        exec anon:memfd -> allow exec[0]
        exec anon:deleted -> deny no_rule
        ",
    );
}

#[test]
fn the_right_to_execute_implies_mapping_where_no_rule_for_files_denies_it() {
    check(
        r#"
  files:
    - allow: [read]
      paths: ["/bin/*"]
    - deny: [map-exec]
      paths: ["/bin/b"]
  exec:
    - allow: ["/bin/*"]
"#,
        "
        file:map-exec /bin/a -> allow exec[0]
        file:read,map-exec /bin/a -> allow files[0]
        file:read,write,map-exec /bin/a -> deny no_rule
        file:map-exec /bin/b -> deny files[1]
        file:map-exec /lib/x -> deny no_rule
        ",
    );
}

#[test]
fn a_path_that_is_too_long_is_a_fault_that_on_fault_decides() {
    let long = format!("/{}", "a/".repeat(2048) + "b");
    let spec = "  files: [{allow: [all], paths: [\"/**\"]}]";
    assert_eq!(answer(&image(spec), &format!("file:read {long}")), "deny fault:path-too-long");
    let open = image(&format!("{spec}\n  onFault: allow"));
    assert_eq!(answer(&open, &format!("file:read {long}")), "allow fault:path-too-long");
    let longest = format!("/{}", "a".repeat(4094));
    assert_eq!(answer(&open, &format!("file:read {longest}")), "allow files[0]");
}

#[test]
fn a_pattern_longer_than_any_path_is_an_error() {
    let pattern = |bytes: usize| format!("  files: [{{allow: [read], paths: [\"/{}\"]}}]", "a".repeat(bytes - 1));
    assert!(compiled(&pattern(4095), &common::Policies(&[]), &[]).is_ok());
    let error = compiled(&pattern(4096), &common::Policies(&[]), &[]).expect_err("too long").to_string();
    assert!(error.contains("can match no resolved path"), "{error}");
}

#[test]
fn a_policy_with_an_empty_spec_allows_nothing() {
    let compiled = compiled("  {}", &common::Policies(&[]), &[]).unwrap_or_else(|error| panic!("{error}"));
    let image = compiled.policy.image(1, &[]).expect("small");
    check_image(
        &image,
        "file:read / -> deny no_rule\nexec /bin/sh -> deny no_rule\nnetwork:create inet -> deny no_rule",
    );
    let empty = agent_monitor_policy::Policy::empty().image(1, &[]).expect("small");
    check_image(
        &empty,
        "file:read / -> deny no_rule\nexec /bin/sh -> deny no_rule\ncapability CAP_CHOWN -> deny no_rule",
    );
}
