//! `cargo xtask ci`: everything that must hold before a change lands, as named steps with their times.

mod arrows;
mod bypasses;
mod scan;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{build, process, setup, vm};

/// Options of `cargo xtask ci`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask ci --step fmt --step clippy")]
pub struct Options {
    /// Run only this step; may be given again
    #[arg(long = "step", value_name = "NAME", value_parser = STEPS.map(|step| step.0))]
    pub steps: Vec<String>,
    /// Kernel for the scenarios; may be given again [default: 6.1 and newest]
    #[arg(long = "kernel", value_name = "6.1|6.12|6.18|newest|PATH")]
    pub kernels: Vec<Spec>,
}

/// What a step found.
enum Verdict {
    Passed,
    /// Skipped for this reason; only what a new machine can't have may be skipped.
    Skipped(String),
}

type Step = (&'static str, fn(&Workspace, &[Spec]) -> Result<Verdict>);

/// The steps, the quick ones first.
const STEPS: [Step; 8] = [
    ("fmt", fmt),
    ("arrows", check_arrows),
    ("bypasses", check_bypasses),
    ("clippy", clippy),
    ("unit", unit),
    ("deny", deny),
    ("scenarios", scenarios),
    ("work", work),
];

/// How long all scenarios may take on one kernel, interpreted by QEMU on a busy machine.
const SCENARIOS_LIMIT_SECONDS: u64 = 1200;

/// How long all work may take on one kernel, likewise.
const WORK_LIMIT_SECONDS: u64 = 600;

/// Runs the steps, all of them even if one fails, and says at the end how many passed.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let kernels = if options.kernels.is_empty() { setup::default_kernels() } else { options.kernels.clone() };
    let is_wanted = |step: &&Step| options.steps.is_empty() || options.steps.iter().any(|name| name == step.0);
    let mut results = Vec::new();
    for (name, step) in STEPS.iter().filter(is_wanted) {
        println!("== {name}");
        let start = Instant::now();
        let verdict = step(workspace, &kernels);
        if let Err(error) = &verdict {
            println!("{error:#}");
        }
        results.push((name, verdict, start.elapsed().as_secs_f32()));
    }
    println!("== steps");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, verdict, seconds) in &results {
        let (count, word) = match verdict {
            Ok(Verdict::Passed) => (&mut passed, "passed".to_owned()),
            Ok(Verdict::Skipped(reason)) => (&mut skipped, format!("skipped: {reason}")),
            Err(_) => (&mut failed, "FAILED".to_owned()),
        };
        *count += 1;
        println!("{name:<10} {seconds:>7.1} s  {word}");
    }
    let tail = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    println!("{passed} passed, {failed} failed{tail}");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn fmt(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    process::run(build::cargo(workspace).args(["fmt", "--all", "--check"]), "check the format (`cargo fmt` mends it)")?;
    Ok(Verdict::Passed)
}

fn check_arrows(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    all_well(arrows::check(workspace)?, "dependencies that point the wrong way")
}

fn check_bypasses(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    all_well(bypasses::check(workspace)?, "lines of docs/bypasses.md without what they claim")
}

fn clippy(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    let mut host = build::cargo(workspace);
    host.args(["clippy", "--workspace", "--exclude", "agent-monitor-ebpf", "--all-targets", "--", "-D", "warnings"]);
    let host = process::run(&mut host, "clippy for the host");

    let mut bpf = build::cargo(workspace);
    // Only here may the stable compiler take what is unstable. The directory of its own keeps what was built without.
    bpf.env("RUSTC_BOOTSTRAP", "1").args(["clippy", "--package", "agent-monitor-ebpf", "-Z", "build-std=core"]);
    bpf.args(["--target", "bpfel-unknown-none", "--target-dir"]).arg(workspace.target.join("bpf"));
    bpf.args(["--", "-D", "warnings"]);
    let bpf = process::run(&mut bpf, "clippy for the kernel programs");
    // Both are shown before one fails.
    host.and(bpf).map(|()| Verdict::Passed)
}

fn unit(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    process::run(build::cargo(workspace).args(["test", "--no-fail-fast"]), "the tests of the default members")?;
    Ok(Verdict::Passed)
}

fn deny(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    if process::find("cargo-deny").is_none() {
        return Ok(Verdict::Skipped("cargo-deny is not installed (`cargo install cargo-deny` gets it)".to_owned()));
    }
    process::run(build::cargo(workspace).args(["deny", "check"]), "check licences and advisories")?;
    Ok(Verdict::Passed)
}

fn scenarios(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let with = build::scenarios(workspace)?.iter().map(build::Program::for_machine).collect::<Result<Vec<_>>>()?;
    if !with.iter().any(|path| path.ends_with("scenarios")) {
        bail!("the crate `tests` has no program `scenarios`; nothing was tested in the machine");
    }
    let mut options = vm::Options::of(kernels, with, "/root/scenarios");
    options.timeout = SCENARIOS_LIMIT_SECONDS;
    for (kernel, status) in vm::run_on_all(workspace, &options)? {
        ensure!(status == 0, "scenarios failed on linux {kernel} with status {status}");
    }
    Ok(Verdict::Passed)
}

/// What agents do on a machine with the distribution's programs, which must not be blocked. Nothing of it is skipped.
fn work(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    setup::ensure_work().context("install what agents work with")?;
    let with = build::scenarios(workspace)?.iter().map(build::Program::for_machine).collect::<Result<Vec<_>>>()?;
    // The machine shows this root directory, and so the Rust that builds us.
    let home = std::env::var("HOME").context("HOME is not set, so rustup's directories are not known")?;
    let places = [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")];
    let places = places.map(|(name, below)| (name, std::env::var(name).unwrap_or_else(|_| format!("{home}/{below}"))));
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").ok().map(|name| ("RUSTUP_TOOLCHAIN", name));
    let environment: String = places
        .into_iter()
        .chain(toolchain)
        .map(|(name, value)| format!("{name}={} ", process::shell_quote(&value)))
        .collect();
    let command = format!("{environment}/root/scenarios --group work --times --no-skip");
    let mut options = vm::Options::of(kernels, with, &command);
    options.root = vm::Root::Host;
    options.timeout = WORK_LIMIT_SECONDS;
    for (kernel, status) in vm::run_on_all(workspace, &options)? {
        ensure!(status == 0, "work was blocked on linux {kernel}: status {status}");
    }
    Ok(Verdict::Passed)
}

fn all_well(problems: Vec<String>, what: &str) -> Result<Verdict> {
    if problems.is_empty() {
        return Ok(Verdict::Passed);
    }
    bail!("{what}:\n  {}", problems.join("\n  "))
}
