//! Tools that cargo builds, into the cache: the user's own ones stay as they are.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::process;
use crate::workspace::Workspace;

/// A tool of the package registry.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Name of the package and of the program.
    pub name: &'static str,
    /// The version that is needed; any, where none is given.
    pub version: Option<&'static str>,
    /// Whether it runs so long that optimizing it pays.
    pub is_optimized: bool,
}

/// It must be in step with the compiler's LLVM, see rust-toolchain.toml.
pub const BPF_LINKER: Tool = Tool { name: "bpf-linker", version: Some("0.10.3"), is_optimized: true };
/// It runs for a second, and builds in half the time without optimization.
pub const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: Some("0.20.2"), is_optimized: false };
/// Builds and runs the fuzz targets.
pub const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: None, is_optimized: true };

/// Builds a tool, unless the version that is needed is there.
pub fn ensure(workspace: &Workspace, tool: Tool) -> Result<()> {
    let own = workspace.tools().join("bin").join(tool.name);
    if is_wanted(tool, &own) {
        return Ok(());
    }
    // Ours comes first in the PATH of what we run: an outdated one must not be in the way.
    if !own.exists() && process::find(tool.name).is_some_and(|path| is_wanted(tool, &path)) {
        return Ok(());
    }
    eprintln!("xtask: setup: building {} {} (takes some minutes, once)", tool.name, tool.version.unwrap_or_default());
    let mut cargo = build::cargo(workspace);
    cargo.args(["install", "--locked", "--force", "--root"]).arg(workspace.tools());
    cargo.arg("--target-dir").arg(workspace.cache.join("tools-build")).arg(tool.name);
    if let Some(version) = tool.version {
        cargo.args(["--version", version]);
    }
    if !tool.is_optimized {
        cargo.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
    }
    process::run(&mut cargo, &format!("build {}", tool.name))?;
    let _ = std::fs::remove_dir_all(workspace.cache.join("tools-build"));
    Ok(())
}

fn is_wanted(tool: Tool, program: &Path) -> bool {
    if !process::is_executable(program) {
        return false;
    }
    let Some(wanted) = tool.version else {
        return true;
    };
    process::output(Command::new(program).arg("--version"), &format!("ask {} for its version", tool.name))
        .is_ok_and(|said| said.split_whitespace().nth(1) == Some(wanted))
}
