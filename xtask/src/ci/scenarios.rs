//! The steps that boot kernels and stage the scenarios.

use anyhow::{Context, Result, bail, ensure};

use super::Verdict;
use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{build, process, setup, vm};

/// How long all scenarios may take on one kernel, interpreted by QEMU on a busy machine.
pub const LIMIT_SECONDS: u64 = 3600;
/// Machines at once: each has two processors, and its scenarios wait more than they work.
pub const AT_ONCE: usize = 2;
/// How long all work may take on one kernel, likewise.
const WORK_LIMIT_SECONDS: u64 = 600;
/// Security modules of the machine that has no `bpf` among them.
const WITHOUT_BPF: &str = "landlock,lockdown,yama";

/// Stages all scenarios on the first and the last of the kernels, and on those between them the ones that share a daemon:
/// each of the others loads and detaches all programs anew, which takes most of the time. `--kernel` with one of those
/// kernels stages all there.
pub fn all(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let (ends, between) = match kernels {
        [first, between @ .., last] => (vec![first.clone(), last.clone()], between),
        few => (few.to_vec(), &[][..]),
    };
    let ends = machine(workspace, &ends, "/root/scenarios")?;
    if between.is_empty() {
        return all_passed(workspace, &ends);
    }
    let between = machine(workspace, between, "/root/scenarios --shared")?;
    // All at once: half of what a machine with a daemon of its own does is waiting for programs to be detached.
    std::thread::scope(|scope| {
        let between = scope.spawn(|| all_passed(workspace, &between));
        let ends = all_passed(workspace, &ends);
        let between = between.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ends.and(between)
    })
}

/// Stages those that want a kernel that runs no LSM programs, on the first of the kernels: what they prove does not
/// depend on it.
pub fn no_lsm(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let first = kernels.get(..1).unwrap_or_default();
    stage(workspace, first, "/root/scenarios --group no-lsm", Some(WITHOUT_BPF))
}

/// Stages the races on the first of the kernels: ten seconds and more each.
pub fn races(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let first = kernels.get(..1).unwrap_or_default();
    let other = build::other_layout(workspace)?;
    let mut options = machine(workspace, first, "/root/scenarios --group races --times --no-skip")?;
    options.with.push(other);
    all_passed(workspace, &options)
}

/// Stages on the last of the kernels what takes minutes each and prints the figures of docs/reliability.md.
pub fn endurance(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let last = kernels.last().map(std::slice::from_ref).unwrap_or_default();
    let mut options = machine(workspace, last, "/root/scenarios --group endurance --times --no-skip")?;
    options.memory = Some(4096);
    all_passed(workspace, &options)
}

/// Lets everything come and go on the last of the kernels for three minutes; `cargo xtask soak` does so for longer.
pub fn short_soak(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    const SECONDS: u64 = 180;
    let last = kernels.last().map(std::slice::from_ref).unwrap_or_default();
    all_passed(workspace, &soak(workspace, last, SECONDS)?)
}

/// The options of a machine in which everything comes and goes for so long.
pub fn soak(workspace: &Workspace, kernels: &[Spec], seconds: u64) -> Result<vm::Options> {
    let command = format!("SOAK_SECONDS={seconds} /root/scenarios --group soak --times --no-skip");
    let mut options = machine(workspace, kernels, &command)?;
    options.memory = Some(2048);
    options.timeout = seconds + WORK_LIMIT_SECONDS;
    Ok(options)
}

/// The options of a machine with the scenarios' programs in it.
pub fn machine(workspace: &Workspace, kernels: &[Spec], command: &str) -> Result<vm::Options> {
    let with = build::scenarios(workspace)?.iter().map(build::Program::for_machine).collect::<Result<Vec<_>>>()?;
    if !with.iter().any(|path| path.ends_with("scenarios")) {
        bail!("the crate `tests` has no program `scenarios`; nothing was tested in the machine");
    }
    let mut options = vm::Options::of(kernels, with, command);
    options.timeout = LIMIT_SECONDS;
    options.jobs = AT_ONCE;
    Ok(options)
}

/// On the newest of the kernels (`--kernel` for another) what agents do on a machine with the distribution's programs,
/// which must not be blocked. Nothing of it is skipped.
pub fn work(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    setup::ensure_work().context("install what agents work with")?;
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
    let newest = kernels.last().map(std::slice::from_ref).unwrap_or_default();
    let mut options = machine(workspace, newest, &command)?;
    options.root = vm::Root::Host;
    options.timeout = WORK_LIMIT_SECONDS;
    all_passed(workspace, &options)
}

fn stage(workspace: &Workspace, kernels: &[Spec], command: &str, lsm: Option<&str>) -> Result<Verdict> {
    let mut options = machine(workspace, kernels, command)?;
    if let Some(lsm) = lsm {
        lsm.clone_into(&mut options.lsm);
    }
    all_passed(workspace, &options)
}

fn all_passed(workspace: &Workspace, options: &vm::Options) -> Result<Verdict> {
    let runs = vm::run_on_all(workspace, options)?;
    let failed: Vec<String> = runs
        .iter()
        .filter(|run| run.status != 0)
        .map(|run| format!("linux {} with status {}", run.release, run.status))
        .collect();
    ensure!(failed.is_empty(), "scenarios failed on {}", failed.join(", "));
    Ok(Verdict::Passed)
}
