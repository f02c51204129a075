//! What others would do for an agent: the kernel for a process that crashes, for a signal about a file, for whoever reads
//! a terminal, for a request that a worker thread takes up.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use anyhow::ensure;
use serde_json::json;

use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, builtin, capability, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_crash_starts_no_program_and_leaves_no_core,
    signals_about_a_file_go_to_no_outsider,
    nothing_is_typed_into_a_terminal,
    a_worker_of_io_uring_has_no_more_capabilities,
];

const UNIX: &str = "network:\n  - {allow: [create], sockets: [unix]}\n";

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// The kernel's own setting for core dumps, put back at the end.
struct CorePattern(String);

impl CorePattern {
    fn set(pattern: &str) -> anyhow::Result<Self> {
        let before = fs::read_to_string(CORE_PATTERN)?;
        fs::write(CORE_PATTERN, pattern)?;
        Ok(Self(before))
    }
}

impl Drop for CorePattern {
    fn drop(&mut self) {
        let _ = fs::write(CORE_PATTERN, &self.0);
    }
}

fn a_crash_starts_no_program_and_leaves_no_core(scene: &mut Scene<'_>) -> Outcome {
    let mark = scene.path("mark");
    // The program reads the whole core, so the dump succeeds.
    let script = scene.path("handler");
    fs::write(
        &script,
        format!("#!/bin/busybox sh\n/bin/busybox cat >/dev/null\n/bin/busybox touch {}\n", mark.display()),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let _pattern = CorePattern::set(&format!("|{}", script.display()))?;
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    ensure!(process.works(&step!("crash"), "before binding")? == 1, "the kernel left no core before binding");
    scene.bind("files:\n  - {allow: [all], paths: [\"/**\"]}\n")?;
    let denied = record("cred_prepare", &[], json!({"name": "core-dump"}), "no_rule", None);
    ensure!(process.works(&step!("crash"), "bound")? == 0, "the kernel left a core of a bound process");
    scene.record(&denied)?;
    ensure!(outsider.works(&step!("crash"), "as an outsider")? == 1, "the kernel left no core of an outsider");
    scene.unbind_after(1)?;
    scene.bind("privileges:\n  - {allow: [core-dump]}\n")?;
    ensure!(process.works(&step!("crash"), "bound, with the privilege")? == 1, "no core with the privilege");
    scene.unbind_after(0)?;
    // And into a file, which the policy would allow to write.
    let core = scene.path("core");
    let _pattern = CorePattern::set(&core.display().to_string())?;
    scene.bind("files:\n  - {allow: [all], paths: [\"/**\"]}\n")?;
    ensure!(process.works(&step!("crash"), "bound")? == 0 && !core.exists(), "a core file was left");
    scene.unbind_after(1)
}

fn signals_about_a_file_go_to_no_outsider(scene: &mut Scene<'_>) -> Outcome {
    let target = Process::start()?;
    let pid = target.pid().to_string();
    let denied =
        |hook: &str, target: u32| record(hook, &[], json!({"name": "signal-any", "target": target}), "no_rule", None);
    // The two last name the process in memory, which is not looked at.
    let by_number = denied("file_fcntl", target.pid());
    Cycle::new()
        .allowed(step!("set-own-owner"))
        .allowed(step!("set-owner", "0"))
        .denied(step!("set-owner", pid), by_number)
        .denied(step!("set-owner-ex", pid), record("file_fcntl", &[], json!({"name": "signal-any"}), "no_rule", None))
        .denied(
            step!("set-owner-ioctl", pid),
            record("file_ioctl", &[], json!({"name": "signal-any"}), "no_rule", None),
        )
        .run(scene, &format!("{UNIX}privileges:\n  - {{allow: [signal-same-agent]}}\n"))?;
    Cycle::new()
        .allowed(step!("set-owner", pid))
        .allowed(step!("set-owner-ex", pid))
        .allowed(step!("set-owner-ioctl", pid))
        .run(scene, &format!("{UNIX}privileges:\n  - {{allow: [signal-any]}}\n"))
}

fn nothing_is_typed_into_a_terminal(scene: &mut Scene<'_>) -> Outcome {
    let denied = builtin("file_ioctl", &[], json!({}), "terminal-input");
    // The call is denied before the kernel sees that this is no terminal.
    Cycle::new()
        .allowed(step!("hold", "terminal", "/dev/null", "r"))
        .denied(step!("type-into", "terminal"), denied)
        .otherwise(libc::ENOTTY)
        .run(scene, "files:\n  - {allow: [all], paths: [\"/**\"]}\n")
}

/// A worker takes on the credentials that the task had when it submitted, which differ from its own after a change.
fn a_worker_of_io_uring_has_no_more_capabilities(scene: &mut Scene<'_>) -> Outcome {
    let (open, other): (PathBuf, PathBuf) = (scene.file("open", "o"), scene.file("other", "o"));
    if Process::start()?.run(&step!("ring-open", open))?.0 == libc::ENOSYS {
        return Err(skip("this kernel has no io_uring"));
    }
    chown(&other, Some(1), Some(1))?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600))?;
    let spec = "files:\n  - {allow: [all], paths: [\"/**\", \"anon:other\"]}\ncapabilities:\n  - {allow: [CAP_IPC_LOCK]}\nprivileges:\n  - {allow: [io-uring]}\n";
    Cycle::new()
        .uncounted()
        .allowed(step!("ring-open", open, "worker"))
        .allowed(step!("new-credentials"))
        .prepared(|| (), step!("ring-open", other, "worker"), EACCES, vec![capability("CAP_DAC_OVERRIDE")])
        .allowed(step!("ring-open-later", open))
        .prepared(|| (), step!("ring-open-later", other), EACCES, vec![capability("CAP_DAC_OVERRIDE")])
        .run(scene, spec)
}
