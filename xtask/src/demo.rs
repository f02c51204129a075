//! `cargo xtask demo`: shows what agent-monitor does to somebody who has never seen it, on this kernel where it can
//! enforce, else in a virtual machine that shows this machine's own programs. The story itself is demo/demo.sh.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{build, process, setup, vm};

const SCRIPT: &str = include_str!("demo/demo.sh");

/// Options of `cargo xtask demo`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask demo --machine")]
pub struct Options {
    /// Use the virtual machine even where this kernel can enforce
    #[arg(long)]
    pub machine: bool,
}

/// Sets up, builds and shows.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let kernels = [Spec::Newest];
    setup::run(workspace, &setup::Options::default(), &kernels)?;
    let program = build::agent_monitor(workspace, false)?;
    let dir = tempfile::tempdir().context("create a directory for the demo")?;
    let script = dir.path().join("demo.sh");
    fs::write(&script, SCRIPT).with_context(|| format!("write {}", script.display()))?;

    let doctor = |command: &mut Command| {
        command.arg("doctor").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    if !options.machine && doctor(&mut Command::new(&program.path)).is_ok_and(|status| status.success()) {
        eprintln!("xtask: this kernel can enforce: showing the demo on it");
        let home = program.path.parent().context("the program is in a directory")?;
        let path = std::env::join_paths(std::iter::once(home.to_path_buf()).chain(process::search_path()))?;
        let policies = workspace.root.join("policies");
        let mut bash = Command::new(process::need("bash")?);
        bash.arg(&script).env("PATH", path).env("POLICIES", policies).env("DEMO", dir.path().join("files"));
        let status = bash.status().context("run the demo")?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    eprintln!("xtask: this kernel refuses what enforcement needs (`agent-monitor doctor` says why): using a machine");
    let mut vm = vm::Options::of(&kernels, vec![script], "bash /root/demo.sh");
    vm.root = vm::Root::Host;
    vm::run(workspace, &vm)
}
