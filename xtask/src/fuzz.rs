//! `cargo xtask fuzz`: runs every target of the directory `fuzz/` for a while. Targets are found, not listed here.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{build, process, setup};

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask fuzz --seconds 600 --target policy_text")]
pub struct Options {
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub seconds: u64,
    /// Run only this target; may be given again
    #[arg(long = "target", value_name = "NAME")]
    pub targets: Vec<String>,
}

/// Runs the targets, all of them even if one finds something.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let dir = workspace.root.join("fuzz");
    if !dir.join("Cargo.toml").is_file() {
        bail!("{} has no Cargo.toml: there is nothing to fuzz", dir.display());
    }
    setup::ensure_tool(workspace, setup::CARGO_FUZZ)?;
    let list = process::output(cargo_fuzz(workspace, "list").args(["--fuzz-dir", "fuzz"]), "list the fuzz targets")?;
    let all: Vec<&str> = list.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("fuzz/ has no target `{unknown}`; it has {}", all.join(", "));
    }
    let is_wanted = |name: &&&str| options.targets.is_empty() || options.targets.iter().any(|wanted| wanted == **name);
    let sanitizer = if has_sanitizer(workspace)? { "address" } else { "none" };
    let (mut passed, mut failed) = (0, 0);
    for target in all.iter().filter(is_wanted) {
        eprintln!("xtask: fuzzing {target} for {} s (sanitizer: {sanitizer})", options.seconds);
        let mut fuzz = cargo_fuzz(workspace, "run");
        fuzz.args(["--fuzz-dir", "fuzz", "--sanitizer", sanitizer, target, "--"]);
        fuzz.arg(format!("-max_total_time={}", options.seconds));
        match process::run(&mut fuzz, &format!("fuzz {target}")) {
            Ok(()) => passed += 1,
            Err(error) => {
                eprintln!("xtask: {error:#}");
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// cargo-fuzz on the pinned toolchain: what it needs of a nightly one, the stable compiler takes when told so.
fn cargo_fuzz(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = build::cargo(workspace);
    cargo.args(["fuzz", command]).env("RUSTC_BOOTSTRAP", "1");
    cargo
}

/// Whether the toolchain brings the run-time library of the address sanitizer.
fn has_sanitizer(workspace: &Workspace) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir"]).current_dir(&workspace.root);
    let dir = process::output(&mut rustc, "ask rustc for its libraries")?;
    let dir = Path::new(dir.trim());
    let entries = dir.read_dir().with_context(|| format!("read {}", dir.display()))?;
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with("rt.asan.a")))
}
