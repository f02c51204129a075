//! System calls: the filter that `run` installs.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};

use crate::harness::process::{Step, shown};
use crate::harness::{EPERM, Outcome, Scenario, Scene, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_call_that_the_policy_does_not_allow_fails_from_the_first_instruction,
];

/// Those that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    run_without_a_daemon_filters_system_calls,
    calls_of_other_interfaces_fail_without_their_group,
    a_command_that_may_not_be_executed_says_why,
    a_program_with_another_owner_keeps_its_user_id_under_the_filter,
    in_audit_mode_a_call_that_is_not_allowed_passes,
];

const PLACE: &str = "/tmp/scenarios-syscalls";

/// What every program here needs beside its calls.
const SPEC: &str = r#"
files:
  - {allow: [read], paths: ["/proc/self/maps"]}
  - {allow: [read, write], paths: ["/dev/null"]}
exec:
  - {allow: ["/bin/busybox", "/root/scenarios", "/tmp/scenarios-syscalls/*"]}
"#;

/// Runs a command under a policy with this in its `spec`.
fn run(more: &str, options: &[&str], command: &[&str]) -> anyhow::Result<Output> {
    fs::create_dir_all(PLACE)?;
    let path = format!("{PLACE}/policy.yaml");
    fs::write(&path, policy::document("syscalls-scenario", &format!("{SPEC}{more}"), PLACE.as_ref()))?;
    let mut run = Command::new("agent-monitor");
    run.args(["run", "--policy", &path]).args(options).arg("--").args(command).stdin(Stdio::null());
    run.output().context("start agent-monitor run")
}

/// What a step gave that is done once: its errno.
fn errno(output: &Output, step: &Step) -> anyhow::Result<i32> {
    let text = String::from_utf8_lossy(&output.stdout);
    let errno = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    errno.with_context(|| {
        format!("{} ended with {}: {text}{}", shown(step), output.status, String::from_utf8_lossy(&output.stderr))
    })
}

fn once(step: &Step) -> anyhow::Result<i32> {
    let words = step.iter().map(|word| String::from_utf8_lossy(word).into_owned());
    errno(&Command::new("/root/scenarios").arg("once").args(words).output()?, step)
}

fn once_in(more: &str, step: &Step) -> anyhow::Result<i32> {
    let words: Vec<String> = step.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let command = ["/root/scenarios", "once"].into_iter().chain(words.iter().map(String::as_str));
    errno(&run(more, &[], &command.collect::<Vec<_>>())?, step)
}

fn expect(found: i32, errno: i32, step: &Step, when: &str) -> Outcome {
    ensure!(found == errno, "{when}: {} gave errno {found}, not {errno}", shown(step));
    Ok(())
}

/// A call that works outside, fails with EPERM without a rule, and works by one.
fn needs_a_rule(step: &Step, name: &str) -> Outcome {
    expect(once(step)?, 0, step, "outside")?;
    expect(once_in("", step)?, EPERM, step, "without rules for calls")?;
    expect(once_in(&format!("syscalls:\n  - allow: [\"@agent\", {name}]\n"), step)?, 0, step, "by a rule")?;
    let denied = format!("syscalls:\n  - allow: [\"@known\"]\n  - deny: [{name}]\n");
    expect(once_in(&denied, step)?, EPERM, step, "by a rule that denies")?;
    expect(once(step)?, 0, step, "outside, afterwards")
}

fn calls() -> Vec<(Step, &'static str)> {
    vec![
        (step!("personality"), "personality"),
        (step!("keyctl"), "keyctl"),
        (step!("userfaultfd"), "userfaultfd"),
        (step!("io-uring-setup"), "io_uring_setup"),
    ]
}

fn a_call_that_the_policy_does_not_allow_fails_from_the_first_instruction(_scene: &mut Scene<'_>) -> Outcome {
    calls().iter().try_for_each(|(step, name)| needs_a_rule(step, name))
}

fn run_without_a_daemon_filters_system_calls() -> Outcome {
    needs_a_rule(&step!("personality"), "personality")?;
    // A call that is newer than the table of the monitor does not exist.
    let newer = step!("call", "511");
    expect(once_in("", &newer)?, libc::ENOSYS, &newer, "a number that has no name")
}

fn calls_of_other_interfaces_fail_without_their_group() -> Outcome {
    // getpid, and the same with 32-bit pointers: kernels may be built, or started, without them.
    for (step, name) in [(step!("call-i386", "20"), "i386"), (step!("call-x32", "39"), "x32")] {
        let outside = once(&step).unwrap_or(libc::ENOSYS);
        expect(once_in("", &step)?, EPERM, &step, "without rules for calls")?;
        expect(
            once_in("syscalls:\n  - allow: [\"@known\"]\n", &step)?,
            EPERM,
            &step,
            "with all calls but foreign ones",
        )?;
        if outside == 0 {
            let all = "syscalls:\n  - allow: [\"@known\", \"@foreign\"]\n";
            expect(once_in(all, &step)?, 0, &step, "by the group")?;
        } else {
            println!("    this kernel has no calls of {name}: not tried with the group");
        }
    }
    Ok(())
}

fn a_command_that_may_not_be_executed_says_why() -> Outcome {
    let output = run("syscalls: []\n", &[], &["/bin/busybox", "true"])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(126), "it ended with {}: {text}", output.status);
    ensure!(text.contains("/bin/busybox") && text.contains("execve"), "it does not say why: {text}");
    let missing = run("syscalls:\n  - allow: [execve]\n", &[], &["/no/such/program"])?;
    ensure!(missing.status.code() == Some(127), "a missing program ended with {}", missing.status);
    // With nothing but exec the program itself fails, and not before.
    let alone = run("syscalls:\n  - allow: [execve]\n", &[], &["/bin/busybox", "true"])?;
    ensure!(alone.status.signal().is_some() || alone.status.code() > Some(127), "it ended with {}", alone.status);
    Ok(())
}

fn a_program_with_another_owner_keeps_its_user_id_under_the_filter() -> Outcome {
    use std::os::unix::fs::{PermissionsExt, chown};
    fs::create_dir_all(PLACE)?;
    let program = format!("{PLACE}/busybox");
    fs::copy("/bin/busybox", &program)?;
    chown(&program, Some(1234), Some(1234))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    let output = run("capabilities:\n  - allow: [CAP_SETUID]\n", &[], &[&program, "id", "-u"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.trim() == "1234", "it says {text:?}, and {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn in_audit_mode_a_call_that_is_not_allowed_passes() -> Outcome {
    let output = run("", &["--mode", "audit"], &["/root/scenarios", "once", "personality"])?;
    expect(errno(&output, &step!("personality"))?, 0, &step!("personality"), "in audit mode")
}
