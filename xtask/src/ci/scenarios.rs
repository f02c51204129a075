//! The steps that boot kernels and stage the scenarios.

use std::sync::{Mutex, PoisonError};

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

/// Stages on each of the kernels the scenarios that share a daemon. Each of the others loads and detaches all programs anew,
/// which takes most of the time: half of them are staged on the first kernel and half on the last. All are where `--kernel`
/// names just one.
pub fn all(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let command = |index| match index {
        _ if kernels.len() == 1 => "/root/scenarios",
        0 => "/root/scenarios --part 1/2",
        _ if index + 1 == kernels.len() => "/root/scenarios --part 2/2",
        _ => "/root/scenarios --shared",
    };
    let output = if kernels.len() == 1 { vm::Output::Shown } else { vm::Output::Whole };
    let mut machines = Vec::new();
    for (index, kernel) in kernels.iter().enumerate() {
        let options = machine(workspace, std::slice::from_ref(kernel), command(index))?;
        machines.push(vm::Options { output, ..options });
    }
    // The two that take longest come first.
    if let Some(last) = machines.pop() {
        machines.insert(0, last);
    }
    let work = Mutex::new(machines.iter());
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let staged = || -> Vec<Result<Verdict>> {
            std::iter::from_fn(next).map(|options| all_passed(workspace, options)).collect()
        };
        let started: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(staged)).collect();
        let ended = started.into_iter().flat_map(|one| one.join().unwrap_or_else(|it| std::panic::resume_unwind(it)));
        let failed: Vec<String> = ended.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(Verdict::Passed)
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
