//! The steps that stage the scenarios: the machines of each.

use anyhow::{Context, Result, bail};

use super::pool::AT_ONCE;
use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{build, process, setup, vm};

/// How long all scenarios may take on one kernel, interpreted by QEMU on a busy machine.
pub const LIMIT_SECONDS: u64 = 3600;
/// How long all work may take on one kernel, likewise.
const WORK_LIMIT_SECONDS: u64 = 600;
/// Security modules of the machine that has no `bpf` among them.
const WITHOUT_BPF: &str = "landlock,lockdown,yama";

/// On each of the kernels the scenarios that share a daemon. Each of the others loads and detaches all programs anew, which
/// takes most of the time: half of them are staged on the first kernel and half on the last. All are where `--kernel` names
/// just one.
pub fn all(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<vm::Options>> {
    let command = |index| match index {
        _ if kernels.len() == 1 => "/root/scenarios",
        0 => "/root/scenarios --part 1/2",
        _ if index + 1 == kernels.len() => "/root/scenarios --part 2/2",
        _ => "/root/scenarios --shared",
    };
    let options = |(index, kernel)| machine(workspace, std::slice::from_ref(kernel), command(index));
    let mut machines = kernels.iter().enumerate().map(options).collect::<Result<Vec<_>>>()?;
    // The two that take longest come first.
    if let Some(last) = machines.pop() {
        machines.insert(0, last);
    }
    Ok(machines)
}

/// Those that want a kernel that runs no LSM programs, on the first of the kernels: what they prove does not depend on it.
pub fn no_lsm(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<vm::Options>> {
    let mut options = machine(workspace, first(kernels), "/root/scenarios --group no-lsm")?;
    WITHOUT_BPF.clone_into(&mut options.lsm);
    Ok(vec![options])
}

/// The races, on the first of the kernels: ten seconds and more each.
pub fn races(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<vm::Options>> {
    let other = build::other_layout(workspace)?;
    let mut options = machine(workspace, first(kernels), "/root/scenarios --group races --times --no-skip")?;
    options.with.push(other);
    Ok(vec![options])
}

/// What takes minutes each and prints the figures of docs/reliability.md, on the last of the kernels.
pub fn endurance(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<vm::Options>> {
    let mut options = machine(workspace, last(kernels), "/root/scenarios --group endurance --times --no-skip")?;
    options.memory = Some(4096);
    Ok(vec![options])
}

/// Everything comes and goes on the last of the kernels for three minutes; `cargo xtask soak` does so for longer.
pub fn short_soak(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<vm::Options>> {
    const SECONDS: u64 = 180;
    Ok(vec![soak(workspace, last(kernels), SECONDS)?])
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
pub fn work(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<vm::Options>> {
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
    let mut options = machine(workspace, last(kernels), &command)?;
    options.root = vm::Root::Host;
    options.timeout = WORK_LIMIT_SECONDS;
    Ok(vec![options])
}

fn first(kernels: &[Spec]) -> &[Spec] {
    kernels.get(..1).unwrap_or_default()
}

fn last(kernels: &[Spec]) -> &[Spec] {
    kernels.last().map(std::slice::from_ref).unwrap_or_default()
}
