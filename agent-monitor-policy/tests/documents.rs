//! The sentences of the policy language about documents: includes, variables, modes.

mod common;

use agent_monitor_common::class::{Mode, OnFault};
use agent_monitor_policy::{NoLibrary, Options, compile};
use common::{Policies, check_image, compiled, document};

const BASE: &str =
    "  mode: audit\n  onFault: allow\n  files: [{allow: [read], paths: [/base, /both], reason: from base}]";

#[test]
fn included_rules_come_first_and_are_named_by_the_way_to_them() {
    let library = Policies(&[
        ("base", BASE),
        ("tls", "  include: [base, deep]\n  files: [{allow: [read], paths: [/tls, /both]}]"),
        ("deep", "  files: [{allow: [read], paths: [/deep, /both]}]"),
    ]);
    let spec = "  include: [base, tls]\n  files: [{allow: [read], paths: [/own, /both]}]";
    let compiled = compiled(spec, &library, &[]).unwrap_or_else(|error| panic!("{error}"));
    // `mode` and `onFault` of the outermost document count.
    assert_eq!((compiled.policy.mode(), compiled.policy.on_fault()), (Mode::Enforce, OnFault::Deny));
    assert!(compiled.warnings.is_empty(), "what does not count is warned of: {}", compiled.warnings);
    check_image(
        &compiled.policy.image(1, &[]).expect("small"),
        "
        file:read /both -> allow base/files[0]
        file:read /base -> allow base/files[0]
        file:read /tls -> allow tls/files[0]
        file:read /deep -> allow tls/deep/files[0]
        file:read /own -> allow files[0]
        ",
    );
}

#[test]
fn a_policy_included_twice_counts_once_under_its_first_name() {
    let library = Policies(&[("base", BASE), ("tls", "  include: [base]")]);
    let compiled = compiled("  include: [tls, base]", &library, &[]).unwrap_or_else(|error| panic!("{error}"));
    check_image(&compiled.policy.image(1, &[]).expect("small"), "file:read /base -> allow tls/base/files[0]");
}

#[test]
fn variables_are_each_documents_own_and_an_override_reaches_all_that_declare_the_name() {
    let library = Policies(&[
        ("one", "  variables: {DIR: /one}\n  files: [{allow: [read], paths: [\"${DIR}/x\"]}]"),
        ("two", "  variables: {DIR: /two/}\n  files: [{allow: [read], paths: [\"${DIR}/x\"]}]"),
    ]);
    let plain = compiled("  include: [one, two]", &library, &[]).unwrap_or_else(|error| panic!("{error}"));
    check_image(
        &plain.policy.image(1, &[]).expect("small"),
        "file:read /one/x -> allow one/files[0]\nfile:read /two/x -> allow two/files[0]",
    );
    let given =
        compiled("  include: [one, two]", &library, &[("DIR", "/new/")]).unwrap_or_else(|error| panic!("{error}"));
    check_image(
        &given.policy.image(1, &[]).expect("small"),
        "file:read /new/x -> allow one/files[0]\nfile:read /two/x -> deny no_rule",
    );
    let other = "  include: [one]\n  files: [{allow: [read], paths: [\"${DIR}/y\"]}]";
    let error = compiled(other, &library, &[]).expect_err("not its own").to_string();
    assert!(error.contains("variable `DIR` is not declared"), "{error}");
}

#[test]
fn a_value_is_inserted_literally() {
    let spec = "  variables: {W: null}\n  files: [{allow: [read], paths: [\"${W}/{a,b}\", \"${W}\"]}]";
    for value in ["/w/*", "/w/[a]", "/w/{x,y}", "/w/a\\b", "/w/$", "/w/?**"] {
        let compiled = compiled(spec, &NoLibrary, &[("W", value)]).unwrap_or_else(|error| panic!("{error}"));
        let image = compiled.policy.image(1, &[]).expect("small");
        check_image(&image, &format!("file:read {value}/a -> allow files[0]\nfile:read /w/a/a -> deny no_rule"));
    }
}

#[test]
fn the_root_as_a_value_is_every_path() {
    let spec = "  variables: {W: /}\n  files: [{allow: [read], paths: [\"${W}/**\", \"${W}\"]}]";
    let compiled = compiled(spec, &NoLibrary, &[]).unwrap_or_else(|error| panic!("{error}"));
    check_image(
        &compiled.policy.image(1, &[]).expect("small"),
        "file:read / -> allow files[0]\nfile:read /a/b -> allow files[0]",
    );
}

#[test]
fn addresses_and_ports_may_be_variables() {
    let spec = "  variables: {A: 10.0.0.0/8, P: \"443\", R: 8000-8999}\n  \
                network: [{allow: [connect], to: {addresses: [\"${A}\"], ports: [\"${P}\", \"${R}\", 22]}}]";
    let compiled = compiled(spec, &NoLibrary, &[]).unwrap_or_else(|error| panic!("{error}"));
    check_image(
        &compiled.policy.image(1, &[]).expect("small"),
        "
        network:connect tcp:10.1.2.3:443 -> allow network[0]
        network:connect tcp:10.1.2.3:8001 -> allow network[0]
        network:connect tcp:10.1.2.3:22 -> allow network[0]
        network:connect tcp:10.1.2.3:23 -> deny no_rule
        ",
    );
}

#[test]
fn a_check_takes_variables_without_a_value_wherever_they_stand() {
    let spec = r#"
  variables: {W: null, A: null, P: null}
  files: [{allow: [read], paths: ["${W}", "${W}/**", "/a/${W}/b", "/a${W}", "**/${W}", "{${W},/x}/y"]}]
  exec: [{allow: ["${W}/bin"]}]
  network:
    - {allow: [connect], to: {addresses: ["${A}"], ports: ["${P}"]}}
    - {allow: [connect], to: {unix: ["${W}/s", "@${W}"]}}
"#;
    let options = Options { allow_unset: true, ..Options::default() };
    let result = compile(document("a", spec), &NoLibrary, &options);
    assert!(result.is_ok_and(|compiled| compiled.warnings.is_empty()));
    assert_eq!(compiled(spec, &NoLibrary, &[]).expect_err("unset").len(), 3);
}

#[test]
fn the_mode_and_what_faults_get_are_in_the_policy() {
    let compiled =
        compiled("  mode: audit\n  onFault: allow", &NoLibrary, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((compiled.policy.mode(), compiled.policy.on_fault()), (Mode::Audit, OnFault::Allow));
    assert_eq!(compiled.policy.name(), "outer");
}

#[test]
fn what_kubernetes_writes_is_taken_and_ignored() {
    let text = "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata:\n  name: a\n  \
                labels: {app.kubernetes.io/name: x}\n  uid: 1-2\n  generation: 3\n  resourceVersion: \"12\"\n  \
                annotations: {a: b}\n  ownerReferences: []\n  finalizers: [a]\n  managedFields: [{a: {b: [1]}}]\n\
                spec: {}\nstatus: {conditions: [{type: Ready}]}\n";
    let document = agent_monitor_policy::Document { path: "a".to_owned(), text: text.to_owned() };
    let compiled = compile(document, &NoLibrary, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(compiled.policy.labels().get("app.kubernetes.io/name").map(String::as_str), Some("x"));
}
