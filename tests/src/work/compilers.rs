//! Projects in C and Rust: compiled, and where the policy says so, run.

use std::path::Path;

use anyhow::{Result, ensure};

use super::job::{self, Job};
use crate::harness::{Outcome, Scenario, skip};
use crate::scenarios;

/// Those that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![WorkAlone: a_c_project_is_built_without_a_daemon];

pub const ALL: &[Scenario] = scenarios![Work:
    a_c_project_is_built_and_run,
    a_rust_project_is_built,
    a_rust_project_is_built_and_tested,
];

/// A program of two sources and a header.
fn c_project(policy: &'static str) -> Result<Job> {
    Job::new(policy, &["make", "gcc"])?
        .file("add.h", "int add(int, int);\n")?
        .file("add.c", "#include \"add.h\"\nint add(int a, int b) { return a + b; }\n")?
        .file(
            "main.c",
            "#include <stdio.h>\n#include \"add.h\"\nint main(void) { printf(\"%d\\n\", add(40, 2)); return 0; }\n",
        )?
        .file("Makefile", "CC = gcc\nsum: main.o add.o\n\t$(CC) -O1 -g -o $@ $^\nmain.o add.o: add.h\n")
}

fn a_c_project_is_built_without_a_daemon() -> Outcome {
    c_project("coding-agent")?.run("make -j2")?;
    ensure!(job::outside("./sum")? == "42\n", "the program that was built does not run");
    Ok(())
}

fn a_c_project_is_built_and_run() -> Outcome {
    let said =
        c_project("build")?.environment("TMPDIR", "/workspace").run("make -s && ./sum && make -s && git init -q")?;
    ensure!(said == "42\n", "it printed {said:?}");
    Ok(())
}

/// A crate that depends on another one beside it.
fn rust_project(policy: &'static str) -> Result<Job> {
    let place = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (rustup, cargo) = (place("RUSTUP_HOME", "/root/.rustup"), place("CARGO_HOME", "/root/.cargo"));
    let proxy = Path::new(&cargo).join("bin/cargo");
    if !proxy.exists() {
        return Err(skip(&format!("no {}; rustup installs it", proxy.display())));
    }
    let manifest = |name: &str, more: &str| format!("[package]\nname = \"{name}\"\nedition = \"2021\"\n{more}");
    let mut job = Job::new(policy, &["gcc"])?
        .file("app/Cargo.toml", &manifest("app", "[dependencies]\nanswer = { path = \"../answer\" }\n"))?
        .file("app/src/main.rs", "fn main() {\n    println!(\"{}\", answer::answer());\n}\n")?
        .file("answer/Cargo.toml", &manifest("answer", ""))?
        .file(
            "answer/src/lib.rs",
            "pub fn answer() -> u32 {\n    42\n}\n\n#[test]\nfn holds() {\n    assert_eq!(answer(), 42);\n}\n",
        )?
        .variable("RUSTUP", &rustup)
        .variable("CARGO", &cargo)
        .environment("RUSTUP_HOME", &rustup)
        .environment("PATH", &format!("{cargo}/bin:/usr/bin:/bin"));
    if let Ok(toolchain) = std::env::var("RUSTUP_TOOLCHAIN") {
        job = job.environment("RUSTUP_TOOLCHAIN", &toolchain);
    }
    Ok(job)
}

fn a_rust_project_is_built() -> Outcome {
    let job = rust_project("coding-agent")?.environment("CARGO_HOME", "/tmp/work-cargo");
    job.run("cd app && cargo build --quiet --offline")?;
    ensure!(job::outside("app/target/debug/app")? == "42\n", "the program that was built does not run");
    Ok(())
}

fn a_rust_project_is_built_and_tested() -> Outcome {
    let job = rust_project("build")?
        .environment("CARGO_HOME", "/workspace/.cargo-home")
        .environment("TMPDIR", "/workspace")
        // A build script is a program that cargo builds and runs.
        .file("app/build.rs", "fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n}\n")?;
    let said =
        job.run("cd app && cargo run --quiet --offline && cd ../answer && cargo test --quiet --offline --lib")?;
    ensure!(said.starts_with("42\n") && said.contains("1 passed"), "it printed {said:?}");
    Ok(())
}
