//! The rule of which room may know which, checked on cargo's metadata and on the paths that the daemon's source names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::scan::{self, Token};
use crate::workspace::Workspace;
use crate::{build, process};

/// Which crates of the workspace a crate may use; `tests` and `xtask` use the others as programs.
const CRATES: [(&str, &[&str]); 6] = [
    ("agent-monitor-common", &[]),
    ("agent-monitor-ebpf", &["agent-monitor-common"]),
    ("agent-monitor-policy", &["agent-monitor-common"]),
    ("agent-monitor", &["agent-monitor-common", "agent-monitor-policy"]),
    ("agent-monitor-tests", &[]),
    ("xtask", &[]),
];

/// The loader of kernel programs: named by one crate, there in one room.
const LOADER: [&str; 3] = ["aya", "aya-log", "aya-obj"];

/// The daemon's modules in layers: a module may use those in layers below its own. In the first and in the last layer
/// modules may also know each other; in between siblings do not.
const LAYERS: [&[&str]; 5] = [
    &["main", "lib", "cli", "cmd"],
    &["daemon"],
    &["support"],
    &["bpf", "bind", "enrich", "sink", "control"],
    &["event", "record", "config", "lock", "seccomp"],
];

/// Returns what points the wrong way.
pub fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let metadata = process::output(
        build::cargo(workspace).args(["metadata", "--format-version", "1", "--no-deps", "--locked"]),
        "read cargo's metadata",
    )?;
    let metadata = serde_json::from_str(&metadata).context("parse cargo's metadata")?;
    let mut problems = crate_problems(&metadata);
    let src = workspace.root.join("agent-monitor/src");
    for path in scan::rust_files(&src)? {
        let source = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let file = path.strip_prefix(&src).unwrap_or(&path);
        problems.extend(file_problems(file, &source));
    }
    Ok(problems)
}

fn crate_problems(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for package in list(metadata, "packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("crate {name} has no place in the table of xtask/src/ci/arrows.rs"));
            continue;
        };
        for dependency in list(&package, "dependencies") {
            let used = dependency["name"].as_str().unwrap_or_default();
            let is_ours = CRATES.iter().any(|(known, _)| *known == used);
            // The daemon's build script builds the kernel programs, which is no use of their code.
            let is_built = name == "agent-monitor" && used == "agent-monitor-ebpf" && dependency["kind"] == "build";
            if is_ours && !allowed.contains(&used) && !is_built {
                problems.push(format!("{name} -> {used} in {name}/Cargo.toml"));
            }
            if LOADER.contains(&used) && name != "agent-monitor" {
                problems.push(format!("{name} -> {used}: only agent-monitor/src/bpf loads kernel programs"));
            }
        }
    }
    problems
}

/// What a file of the daemon names that it must not know. `file` is relative to the daemon's `src`.
fn file_problems(file: &Path, source: &str) -> Vec<String> {
    let module = module_path(file);
    let own = module.first().map_or("main", String::as_str);
    let tokens = scan::tokens(source);
    let mut problems = Vec::new();
    let Some(layer) = layer_of(own) else {
        problems.push(format!(
            "agent-monitor/src/{}: module {own} has no place in the layers of xtask/src/ci/arrows.rs",
            file.display()
        ));
        return problems;
    };
    let mut complain = |line: usize, what: String| {
        let problem = format!("agent-monitor/src/{}:{line}: {what}", file.display());
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    for (used, line) in modules_named(&tokens, module.len()) {
        let Some(used_layer) = layer_of(&used) else {
            continue;
        };
        let may_know_siblings = layer == 0 || layer == LAYERS.len() - 1;
        let is_well = used == own || used_layer > layer || (used_layer == layer && may_know_siblings);
        if !is_well {
            complain(line, format!("{own} -> {used}"));
        }
    }
    if own != "bpf" {
        for (index, token) in tokens.iter().enumerate() {
            let is_path =
                tokens.get(index + 1).is_some_and(|next| next.text == "::" || next.text == ";" || next.text == "as");
            let follows_path =
                index > 0 && tokens[index - 1].text == "::" && index > 1 && is_word(&tokens[index - 2].text);
            if LOADER.iter().any(|name| name.replace('-', "_") == token.text) && is_path && !follows_path {
                complain(token.line, format!("{own} names {}, which only bpf may", token.text));
            }
        }
    }
    problems
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// `sink/audit.rs` is `sink::audit`, `sink.rs` is `sink`, `main.rs` is the crate itself.
fn module_path(file: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["main"] || path == ["lib"] {
        path.pop();
    }
    path
}

/// The modules of the crate's top level that these tokens name by `crate::` or by enough `super::`.
fn modules_named(tokens: &[Token], depth: usize) -> Vec<(String, usize)> {
    let mut named = Vec::new();
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    for index in 0..tokens.len() {
        let follows_path = index > 0 && text(index - 1) == "::";
        if follows_path || text(index + 1) != "::" {
            continue;
        }
        let mut at = index + 2;
        match text(index) {
            "crate" => {}
            "super" => {
                let mut ups = 1;
                while text(at) == "super" && text(at + 1) == "::" {
                    (ups, at) = (ups + 1, at + 2);
                }
                if ups < depth {
                    continue;
                }
            }
            _ => continue,
        }
        named.extend(heads(tokens, at));
    }
    named
}

/// First words after `crate::`: one, or those of a group `{a::b, c}`.
fn heads(tokens: &[Token], at: usize) -> Vec<(String, usize)> {
    let Some(first) = tokens.get(at) else {
        return Vec::new();
    };
    if first.text != "{" {
        return vec![(first.text.clone(), first.line)];
    }
    let (mut heads, mut depth, mut is_head) = (Vec::new(), 0, false);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                is_head = depth == 1;
            }
            "}" => depth -= 1,
            "," => is_head = depth == 1,
            word if is_head => {
                heads.push((word.to_owned(), token.line));
                is_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::{crate_problems, file_problems};

    fn problems(file: &str, source: &str) -> Vec<String> {
        file_problems(file.as_ref(), source)
    }

    #[test]
    fn arrows_that_point_down_are_well() {
        let source = "use crate::{config::Config, record, event::{Event, sink}};\nuse super::follow;\nmod tests { use super::*; }";
        assert_eq!(problems("sink/audit.rs", source), [""; 0]);
        assert_eq!(problems("main.rs", "mod cmd; use crate::daemon; use aya_like::x;"), [""; 0]);
        assert_eq!(problems("cmd/run.rs", "use crate::{bpf, bind}; use crate::cli::Args;"), [""; 0]);
        assert_eq!(problems("bpf/load.rs", "use aya::Ebpf;"), [""; 0]);
    }

    #[test]
    fn a_sibling_must_not_be_known() {
        assert_eq!(problems("sink.rs", "use crate::bind::Binding;"), ["agent-monitor/src/sink.rs:1: sink -> bind"]);
        assert_eq!(
            problems("sink/audit.rs", "\nuse crate::{record, enrich::x};"),
            ["agent-monitor/src/sink/audit.rs:2: sink -> enrich"]
        );
        assert_eq!(problems("sink/audit.rs", "fn f() { super::super::control::g() }").len(), 1);
        assert_eq!(problems("sink.rs", "fn f() -> super::bpf::Map {}").len(), 1);
    }

    #[test]
    fn an_arrow_up_fails() {
        assert_eq!(problems("record.rs", "fn f() { crate::daemon::f() }").len(), 1);
        assert_eq!(problems("daemon.rs", "use crate::cmd;").len(), 1);
        assert_eq!(problems("event/x.rs", "use crate::sink;").len(), 1);
    }

    #[test]
    fn comments_and_texts_name_nothing() {
        assert_eq!(problems("record.rs", "// crate::daemon\nconst A: &str = \"crate::daemon aya::x\";"), [""; 0]);
    }

    #[test]
    fn only_bpf_names_the_loader() {
        for source in ["use aya::Ebpf;", "fn f(x: &::aya::Btf) {}", "extern crate aya;", "aya_log::EbpfLogger::init();"]
        {
            assert_eq!(problems("daemon.rs", source).len(), 1, "{source}");
        }
        assert_eq!(problems("daemon.rs", "use crate::bpf::aya::X; struct S { aya: u8 }"), [""; 0]);
    }

    #[test]
    fn a_module_without_a_place_fails() {
        assert_eq!(problems("helper.rs", "").len(), 1);
    }

    #[test]
    fn crates_use_only_those_that_they_may() {
        let metadata = |name: &str, uses: &str, kind: &str| {
            let text =
                format!(r#"{{"packages":[{{"name":"{name}","dependencies":[{{"name":"{uses}","kind":{kind}}}]}}]}}"#);
            serde_json::from_str(&text).expect("it is JSON")
        };
        let count = |name, uses, kind| crate_problems(&metadata(name, uses, kind)).len();
        assert_eq!(count("agent-monitor", "agent-monitor-policy", "null"), 0);
        assert_eq!(count("agent-monitor", "agent-monitor-ebpf", "\"build\""), 0);
        assert_eq!(count("agent-monitor", "aya", "null"), 0);
        assert_eq!(count("agent-monitor", "agent-monitor-ebpf", "null"), 1);
        assert_eq!(count("agent-monitor-common", "agent-monitor-policy", "null"), 1);
        assert_eq!(count("agent-monitor-policy", "aya", "null"), 1);
        assert_eq!(count("agent-monitor-tests", "agent-monitor-common", "\"dev\""), 1);
        assert_eq!(count("another", "serde", "null"), 1);
    }
}
