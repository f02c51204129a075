//! Whether the machine runs on KVM or on QEMU's own interpreter (TCG). That `/dev/kvm` exists says little: on some hosts
//! a stock kernel does not start on it. So one is booted once, and the answer is kept while QEMU and the host's kernel
//! stay the same.

use std::fs::{self, OpenOptions};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::image::Payload;
use super::machine::{Hardware, Output};
use super::session::{self, Outcome};
use super::{DEFAULT_LSM, Root};
use crate::kernel::Kernel;
use crate::process;
use crate::workspace::Workspace;

/// How long a stock kernel may take to run a command on KVM. Where it works, it takes about a second.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How a machine's instructions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU, a thread for each processor.
    Tcg,
    /// By QEMU, with a clock that advances one nanosecond with each instruction.
    Icount,
}

/// Everything that TCG can do, but `cmpxchg16b`: with several processors QEMU 7.2 returns from it with garbage in the
/// flags now and then, and the guest dies of a double fault in `__kmalloc` (seen in about every second boot of 6.12). And
/// without `erms` and `fsrm`, for which kernels copy and clear byte by byte: QEMU interprets each byte, and 40 % of loading
/// the programs on 6.1 was that.
const CPU: &str = "max,-cx16,-erms,-fsrm";

impl Accel {
    /// QEMU's arguments for it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg,thread=multi", "-cpu", CPU],
            Self::Icount => &["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", CPU],
        }
    }

    /// Its name for a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::Icount => "tcg, counting instructions",
        }
    }
}

/// Returns the fastest way that works here.
pub fn best(workspace: &Workspace, kernel: &Kernel) -> Result<Accel> {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accel::Tcg);
    }
    let qemu = process::output(
        Command::new(process::need("qemu-system-x86_64")?).arg("--version"),
        "ask QEMU for its version",
    )?;
    let host = fs::read_to_string("/proc/version").context("read /proc/version")?;
    let key = format!("{}\n{}", qemu.lines().next().unwrap_or_default(), host.trim());
    let path = workspace.cache.join("kvm-probe");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if let Some((answer, kept_key)) = kept.split_once('\n')
        && kept_key == key
    {
        return Ok(if answer == "kvm" { Accel::Kvm } else { Accel::Tcg });
    }
    eprintln!("xtask: trying whether a stock kernel starts on /dev/kvm (once, at most {} s)", PROBE_LIMIT.as_secs());
    let accel = probe(kernel)?;
    eprintln!("xtask: {}", if accel == Accel::Kvm { "it does: using KVM" } else { "it does not: using TCG" });
    fs::write(&path, format!("{}\n{key}", accel.name())).with_context(|| format!("write {}", path.display()))?;
    Ok(accel)
}

fn probe(kernel: &Kernel) -> Result<Accel> {
    let hardware = Hardware {
        accel: Accel::Kvm,
        cpus: 2,
        memory_mib: 512,
        root: Root::Minimal,
        lsm: DEFAULT_LSM.to_owned(),
        append: String::new(),
    };
    let payload = Payload {
        root: Root::Minimal,
        programs: Vec::new(),
        policies: None,
        with: Vec::new(),
        command: "true".to_owned(),
    };
    let report = session::run(kernel, &hardware, &payload, PROBE_LIMIT, Output::Hidden)?;
    match report.outcome {
        Outcome::Exited(0) => Ok(Accel::Kvm),
        Outcome::Interrupted => anyhow::bail!("interrupted"),
        _ => Ok(Accel::Tcg),
    }
}
