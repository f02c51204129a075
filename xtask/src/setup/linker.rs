//! Tools that cargo builds, into the cache: the user's own ones stay as they are.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::process;
use crate::workspace::Workspace;

/// It must be in step with the compiler's LLVM, see rust-toolchain.toml.
const VERSION: &str = "0.10.3";

/// Builds bpf-linker, unless the very version is there.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let own = workspace.tools().join("bin/bpf-linker");
    if version(&own).is_some_and(|version| version == VERSION) {
        return Ok(());
    }
    // Ours comes first in the PATH of what we run: an outdated one must not be in the way.
    if process::find("bpf-linker").and_then(|path| version(&path)).is_some_and(|version| version == VERSION)
        && !own.exists()
    {
        return Ok(());
    }
    install(workspace, "bpf-linker", Some(VERSION))
}

/// Builds a tool from the package registry into the cache, with cargo's own progress on standard error.
pub fn install(workspace: &Workspace, name: &str, version: Option<&str>) -> Result<()> {
    eprintln!("xtask: setup: building {name} {} (takes some minutes, once)", version.unwrap_or_default());
    let mut cargo = build::cargo(workspace);
    cargo.args(["install", "--locked", "--force", "--root"]).arg(workspace.tools());
    cargo.arg("--target-dir").arg(workspace.cache.join("tools-build")).arg(name);
    if let Some(version) = version {
        cargo.args(["--version", version]);
    }
    process::run(&mut cargo, &format!("build {name}"))?;
    let _ = std::fs::remove_dir_all(workspace.cache.join("tools-build"));
    Ok(())
}

fn version(program: &Path) -> Option<String> {
    let said = process::output(Command::new(program).arg("--version"), "ask bpf-linker for its version").ok()?;
    said.split_whitespace().nth(1).map(str::to_owned)
}
