//! `cargo xtask ci`: everything that must hold before a change lands, as named steps with their times.

mod api;
mod arrows;
mod bypasses;
mod deny;
pub mod pool;
mod scan;
pub mod scenarios;
mod verifier;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{build, process, setup, vm};

/// Options of `cargo xtask ci`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask ci --step fmt --step clippy")]
pub struct Options {
    /// Run only this step; may be given again. `races`, `endurance` and `api-long` run only so
    #[arg(long = "step", value_name = "NAME", value_parser = STEPS.map(|step| step.0))]
    pub steps: Vec<String>,
    /// Kernel for the steps that boot one; may be given again [default: 6.1, 6.12, 6.18 and newest]
    #[arg(long = "kernel", value_name = "6.1|6.12|6.18|newest|PATH")]
    pub kernels: Vec<Spec>,
    /// Write what the verifiers of the kernels say into agent-monitor-ebpf/verifier.tsv, and check nothing
    #[arg(long, conflicts_with = "steps")]
    pub bless_verifier: bool,
}

/// What a step found.
pub enum Verdict {
    Passed,
    /// Passed, but for what a new machine can't have.
    PassedBut(String),
}

/// What a step does.
enum Work {
    /// Checks, at once.
    Check(fn(&Workspace, &[Spec]) -> Result<Verdict>),
    /// Makes machines ready, which run side by side with those of other steps after all checks.
    Stage(fn(&Workspace, &[Spec]) -> Result<Vec<vm::Options>>),
}

use Work::{Check, Stage};

/// The steps, the quick ones first; of those with machines the long ones.
const STEPS: [(&str, Work); 15] = [
    ("fmt", Check(fmt)),
    ("arrows", Check(check_arrows)),
    ("bypasses", Check(check_bypasses)),
    ("clippy", Check(clippy)),
    ("unit", Check(unit)),
    ("api", Check(api::check)),
    ("deny", Check(check_deny)),
    ("verifier", Check(verifier::check)),
    ("scenarios", Stage(scenarios::all)),
    ("soak", Stage(scenarios::short_soak)),
    ("work", Stage(scenarios::work)),
    ("no-lsm", Stage(scenarios::no_lsm)),
    ("races", Stage(scenarios::races)),
    ("endurance", Stage(scenarios::endurance)),
    ("api-long", Check(api::check_long)),
];

/// Steps that take minutes and run only where `--step` names them.
const ON_REQUEST: [&str; 3] = ["races", "endurance", "api-long"];

/// What came of a step.
pub struct Ended {
    name: &'static str,
    result: Result<Verdict>,
    /// What it took; of its machines the sum.
    seconds: f32,
}

/// Runs the steps, all of them even if one fails, and says at the end how many passed.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let (kernels, left_out) = match options.kernels.as_slice() {
        [] => setup::default_kernels(workspace)?,
        given => (given.to_vec(), Vec::new()),
    };
    if options.bless_verifier {
        verifier::bless(workspace, &kernels, options.kernels.is_empty())?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted = |step: &&(&str, Work)| match options.steps.as_slice() {
        [] => !ON_REQUEST.contains(&step.0),
        named => named.iter().any(|name| name == step.0),
    };
    let start = Instant::now();
    let (mut ended, mut jobs) = (Vec::new(), Vec::new());
    for (name, work) in STEPS.iter().filter(is_wanted) {
        println!("== {name}");
        let start = Instant::now();
        let result = match work {
            Check(check) => check(workspace, &kernels),
            Stage(stage) => stage(workspace, &kernels).map(|machines| {
                println!("comes with the other machines");
                jobs.extend(machines.into_iter().map(|options| (*name, options)));
                Verdict::Passed
            }),
        };
        if let Err(error) = &result {
            println!("{error:#}");
        }
        ended.push(Ended { name, result, seconds: start.elapsed().as_secs_f32() });
    }
    pool::run(workspace, jobs, &mut ended);
    println!("== steps");
    let (mut passed, mut failed) = (0, 0);
    for Ended { name, result, seconds } in &ended {
        let (count, word) = match result {
            Ok(Verdict::Passed) => (&mut passed, "passed".to_owned()),
            Ok(Verdict::PassedBut(what)) => (&mut passed, format!("passed, but {what}")),
            Err(_) => (&mut failed, "FAILED".to_owned()),
        };
        *count += 1;
        println!("{name:<10} {seconds:>7.1} s  {word}");
    }
    for spec in &left_out {
        println!("no step ran on linux {spec}: Debian's mirror has it no more, see above");
    }
    let (seconds, at_once) = (start.elapsed().as_secs_f32(), pool::AT_ONCE);
    println!("{passed} passed, {failed} failed, in {seconds:.0} s ({at_once} machines at once)");
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

fn check_deny(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    deny::check(workspace)
}

/// Passes where there is no problem.
fn all_well(problems: Vec<String>, what: &str) -> Result<Verdict> {
    if problems.is_empty() {
        return Ok(Verdict::Passed);
    }
    bail!("{what}:\n  {}", problems.join("\n  "))
}
