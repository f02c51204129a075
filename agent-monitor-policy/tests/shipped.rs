//! The policies in `policies/`: each compiles without a warning, gives what its table of cases says, and stays small.

use agent_monitor_common::class::Class;
use agent_monitor_policy::{Document, ImageView, Library, Options, Protected, cases, compile};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names of the policies that there should be.
const SHIPPED: [&str; 10] = [
    "base",
    "build",
    "coding-agent",
    "credentials",
    "locked",
    "mcp-filesystem",
    "python-interpreter",
    "tls",
    "toolchain",
    "working-copy",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn document(name: &str) -> Document {
    let path = directory().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Document { path: format!("policies/{name}"), text }
}

/// Names of the shipped policies.
fn policies() -> Vec<String> {
    let entries = std::fs::read_dir(directory()).expect("the directory is there");
    let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".yaml").filter(|name| !name.ends_with(".cases")).map(str::to_owned))
        .collect();
    names.sort();
    names
}

struct Shipped;

impl Library for Shipped {
    fn find(&self, name: &str, _beside: &str) -> Result<Option<Document>, String> {
        Ok(directory().join(format!("{name}.yaml")).is_file().then(|| document(&format!("{name}.yaml"))))
    }
}

#[test]
fn every_shipped_policy_gives_what_its_cases_say() {
    assert_eq!(policies(), SHIPPED);
    for name in policies() {
        let table = cases::parse(&document(&format!("{name}.cases.yaml"))).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(table.policy.as_deref(), Some(name.as_str()));
        let outcome = cases::run(&table, &document(&format!("{name}.yaml")), &Shipped, &Options::default())
            .unwrap_or_else(|error| panic!("{error}"));
        let failed: Vec<String> = outcome.failed.iter().map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{}\n{} passed", failed.join("\n"), outcome.passed);
        assert!(outcome.passed > 10, "{name} has too few cases");
    }
}

#[test]
fn every_shipped_policy_compiles_without_warnings_into_a_small_image() {
    for name in policies() {
        check_size(&name, Options { allow_unset: true, ..Options::default() });
    }
}

/// Directories of a user make an image larger, for the patterns below each.
#[test]
fn the_image_of_a_users_own_directories_is_small() {
    let home = "/home/somebody";
    let variables = [
        ("WORKSPACE", format!("{home}/projects/some-application")),
        ("HOME", home.to_owned()),
        ("TMP", "/tmp/agent-of-somebody".to_owned()),
        ("RUSTUP", format!("{home}/.rustup")),
        ("CARGO", format!("{home}/.cargo")),
    ];
    for (name, known) in [("coding-agent", 5), ("build", 5), ("mcp-filesystem", 3), ("python-interpreter", 3)] {
        let variables = variables[..known].iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        check_size(name, Options { variables, allow_unset: false });
    }
}

fn check_size(name: &str, options: Options) {
    let start = Instant::now();
    let compiled = compile(document(&format!("{name}.yaml")), &Shipped, &options).unwrap_or_else(|e| panic!("{e}"));
    let image = compiled.policy.image(1, &[Protected::Tree("/run/agent-monitor".to_owned())]).expect("small");
    let took = start.elapsed();
    assert!(compiled.warnings.is_empty(), "{}", compiled.warnings);
    let view = ImageView::parse(image.as_bytes()).expect("valid");
    let states: Vec<u32> = Class::ALL.iter().map(|class| view.states(*class)).collect();
    println!("{name}: {} bytes, states {states:?}, {took:?}", image.as_bytes().len());
    assert!(image.as_bytes().len() <= 512 << 10, "{name} needs the largest size class");
    // Generous: the test may run without optimization on a busy machine.
    assert!(took < Duration::from_secs(20), "{name} took {took:?}");
}
