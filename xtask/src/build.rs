//! `cargo xtask build`: agent-monitor and the scenarios as static programs, which run in any machine and container.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Options of `cargo xtask build`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask build")]
pub struct Options {}

/// A static program that was built.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Directory of its copy for the machine, beside it.
    copies: &'static str,
    /// Name of the copy, where it is another than the program's.
    copy_name: Option<&'static str>,
}

impl Program {
    /// A copy without debug information, which would only take the machine's memory and time.
    pub fn for_machine(&self) -> Result<PathBuf> {
        let name = self.path.file_name().with_context(|| format!("{} has no name", self.path.display()))?;
        let dir = self.path.with_file_name(self.copies);
        let stripped = dir.join(self.copy_name.map_or(name, OsStr::new));
        // The copy gets the time of what it was made from, and is made anew when that is another one: with other features
        // cargo may put an older program in its place.
        let time = |path: &Path| path.metadata().and_then(|meta| meta.modified());
        let made = time(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        if time(&stripped).ok() != Some(made) {
            std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            let mut strip = Command::new(process::need("strip")?);
            strip.arg("--strip-debug").arg("-o").arg(&stripped).arg(&self.path);
            process::output(&mut strip, &format!("strip {}", self.path.display()))?;
            let copy = File::options().append(true).open(&stripped).context("open the stripped program")?;
            copy.set_modified(made).with_context(|| format!("set the time of {}", stripped.display()))?;
        }
        Ok(stripped)
    }
}

/// Builds everything that runs in the machine.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    // First, because cargo puts it in the place of the usual one.
    println!("{}", other_layout(workspace)?.display());
    for program in [agent_monitor(workspace, false)?].into_iter().chain(scenarios(workspace)?) {
        println!("{}", program.path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the daemon and command line; with `kernel_log` so that the kernel programs write to its log.
pub fn agent_monitor(workspace: &Workspace, kernel_log: bool) -> Result<Program> {
    let mut what = vec!["--package", "agent-monitor", "--bin", "agent-monitor"];
    if kernel_log {
        what.extend(["--features", "kernel-log"]);
    }
    let mut program = programs(workspace, &what)?.into_iter().next().context("cargo built no agent-monitor")?;
    if kernel_log {
        // A machine of another command that starts now must not take it.
        program.copies = "for-machine-kernel-log";
    }
    Ok(program)
}

/// Builds an agent-monitor whose maps are laid out in another way, as those of a later version: its copy for the machine,
/// `agent-monitor-other-layout`.
pub fn other_layout(workspace: &Workspace) -> Result<PathBuf> {
    let what = ["--package", "agent-monitor", "--bin", "agent-monitor", "--features", "other-layout"];
    let mut program = programs(workspace, &what)?.into_iter().next().context("cargo built no agent-monitor")?;
    (program.copies, program.copy_name) = ("for-machine-other-layout", Some("agent-monitor-other-layout"));
    program.for_machine()
}

/// Builds the programs of the crate `tests`: the scenarios, and what they run.
pub fn scenarios(workspace: &Workspace) -> Result<Vec<Program>> {
    programs(workspace, &["--package", "agent-monitor-tests", "--bins"])
}

/// Cargo, with the tools of `setup` in front of `PATH`.
pub fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(workspace.tools().join("bin")).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(dirs) {
        command.env("PATH", path);
    }
    // What `cargo run` set for us would change the fingerprints of what we build.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(&workspace.root);
    command
}

fn programs(workspace: &Workspace, what: &[&str]) -> Result<Vec<Program>> {
    let mut build = cargo(workspace);
    build.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]).args(what);
    build.arg("--target-dir").arg(workspace.vm_target());
    build.env("RUSTFLAGS", "-C target-feature=+crt-static").stderr(std::process::Stdio::inherit());
    let attempt = format!("build {}", what[1]);
    let output = build.output().with_context(|| format!("{attempt}: start cargo"))?;
    anyhow::ensure!(output.status.success(), "{attempt}: cargo ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message.get("executable")?.as_str()?;
        Some(Program { path: path.into(), copies: "for-machine", copy_name: None })
    };
    Ok(text.lines().filter_map(executable).collect())
}
