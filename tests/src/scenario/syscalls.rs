//! System calls: the filter that `run` installs, exec without one, and what looks at each call.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::harness::process::{Step, shown};
use crate::harness::{Cycle, EPERM, Outcome, Process, Scenario, Scene, builtin, control, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_call_that_the_policy_does_not_allow_fails_from_the_first_instruction,
    exec_without_a_filter_is_denied_where_the_policy_has_rules_for_calls,
    exec_without_a_filter_is_recorded_only_in_audit_mode,
    a_call_that_is_not_allowed_ends_the_process_where_the_policy_says_kill,
    calls_are_looked_at_only_while_a_policy_asks_for_it,
    in_audit_mode_calls_are_recorded_and_end_nothing,
    run_under_a_policy_that_says_kill_starts_and_ends_as_ever,
    calls_of_other_interfaces_fail_without_their_group,
    a_command_that_may_not_be_executed_says_why,
    a_program_with_another_owner_keeps_its_user_id_under_the_filter,
    in_audit_mode_a_call_that_is_not_allowed_passes,
];

/// The one that must have no daemon: each `run` loads the programs then, which takes seconds.
pub const ALONE: &[Scenario] = scenarios![Alone:
    run_without_a_daemon_filters_system_calls,
];

const PLACE: &str = "/tmp/scenarios-syscalls";

/// What every program here needs beside its calls.
const SPEC: &str = r#"
files:
  - {allow: [read], paths: ["/proc/self/maps"]}
  - {allow: [read, write], paths: ["/dev/null"]}
exec:
  - {allow: ["/bin/busybox", "/root/scenarios", "/tmp/scenarios-syscalls/*"]}
privileges:
  - {allow: [io-uring, keyring, setuid-exec, userfaultfd]}
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
    calls().iter().try_for_each(|(step, name)| needs_a_rule(step, name))?;
    // A call that is newer than the table of the monitor does not exist.
    let newer = step!("call", "511");
    expect(once_in("", &newer)?, libc::ENOSYS, &newer, "a number that has no name")
}

fn run_without_a_daemon_filters_system_calls() -> Outcome {
    let step = step!("personality");
    expect(once(&step)?, 0, &step, "outside")?;
    expect(once_in("", &step)?, EPERM, &step, "without rules for calls")
}

fn calls_of_other_interfaces_fail_without_their_group(_scene: &mut Scene<'_>) -> Outcome {
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

fn a_command_that_may_not_be_executed_says_why(_scene: &mut Scene<'_>) -> Outcome {
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

fn a_program_with_another_owner_keeps_its_user_id_under_the_filter(_scene: &mut Scene<'_>) -> Outcome {
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

fn in_audit_mode_a_call_that_is_not_allowed_passes(_scene: &mut Scene<'_>) -> Outcome {
    let output = run("", &["--mode", "audit"], &["/root/scenarios", "once", "personality"])?;
    expect(errno(&output, &step!("personality"))?, 0, &step!("personality"), "in audit mode")
}

const BUSYBOX: &str = "exec:\n  - {allow: [\"/bin/busybox\"]}\n";

fn exec_without_a_filter_is_denied_where_the_policy_has_rules_for_calls(scene: &mut Scene<'_>) -> Outcome {
    let exec = || step!("exec", "/bin/busybox", "true");
    let object = json!({"path": "/bin/busybox"});
    let rules = "syscalls:\n  - {allow: [\"@known\"]}\n";
    Cycle::new()
        .denied(exec(), builtin("bprm_creds_for_exec", &[], object, "no-syscall-filter"))
        .run(scene, &format!("{BUSYBOX}{rules}"))?;
    Cycle::new().allowed(exec()).run(scene, BUSYBOX)?;
    // What `run` starts carries one, and so does all that it starts.
    let output = run(rules, &[], &["/bin/busybox", "sh", "-c", "/bin/busybox true && exit 3"])?;
    ensure!(output.status.code() == Some(3), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn exec_without_a_filter_is_recorded_only_in_audit_mode(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind_as("scenario", &format!("{BUSYBOX}syscalls: []\n"), json!({"mode": "audit"}))?;
    process.works(&step!("exec", "/bin/busybox", "true"), "in audit mode")?;
    let expected =
        json!({"operation": "bprm_creds_for_exec", "verdict": "audit", "reason": "builtin:no-syscall-filter"});
    scene.record(&expected).map(drop)
}

/// What a process gets that makes a call which is not allowed.
fn killed(object: &str, reason: &str, rule: Option<&str>) -> Value {
    json!({"type": "operation", "class": "syscall", "operation": "sys_enter", "object": {"name": object}, "verdict": "deny",
        "reason": reason, "errno": null, "signal": "SIGKILL", "mode": "enforce", "policy": {"name": "scenario", "rule": rule}})
}

fn a_call_that_is_not_allowed_ends_the_process_where_the_policy_says_kill(scene: &mut Scene<'_>) -> Outcome {
    const KILL: &str = "syscallEnforcement: kill\n";
    let mut outsider = Process::start()?;
    let by_rule = "syscalls:\n  - {allow: [\"@known\"]}\n  - {deny: [personality]}\n";
    let foreign = step!("call-i386", "20");
    let mut steps = vec![
        (KILL.to_owned(), step!("personality"), killed("personality", "no_rule", None)),
        (KILL.to_owned(), step!("userfaultfd"), killed("userfaultfd", "no_rule", None)),
        (format!("{KILL}{by_rule}"), step!("personality"), killed("personality", "deny_rule", Some("syscalls[1]"))),
        (KILL.to_owned(), step!("call-x32", "39"), killed("x32:39", "no_rule", None)),
    ];
    if once(&foreign).is_ok_and(|errno| errno == 0) {
        steps.push((KILL.to_owned(), foreign, killed("i386:20", "no_rule", None)));
    }
    for (spec, step, expected) in steps {
        let mut process = scene.process()?;
        process.run(&step)?;
        // SIGKILL does not undo the call: where another hook judges it too, that must have nothing to say.
        scene.bind(&format!("{spec}privileges:\n  - {{allow: [userfaultfd]}}\n"))?;
        process.works(&step!("nothing"), "bound, and allowed")?;
        let done = process.run(&step);
        ensure!(done.is_err(), "{} was not ended: {done:?}", shown(&step));
        scene.record(&expected).with_context(|| shown(&step))?;
        outsider.works(&step!("personality"), "as an outsider")?;
        scene.unbind_after(1)?;
    }
    let mut process = scene.process()?;
    scene.bind(&format!("{KILL}syscalls:\n  - {{allow: [\"@agent\", personality]}}\n"))?;
    process.works(&step!("personality"), "allowed by a rule")?;
    scene.unbind_after(0)?;
    process.works(&step!("userfaultfd"), "after unbinding")?;
    // A policy that does not say so lets pass what no filter stops.
    scene.bind("files: []\n")?;
    process.works(&step!("personality"), "without looking at calls")?;
    scene.unbind_after(0)
}

/// Whether the program that looks at calls is attached.
fn watching() -> anyhow::Result<bool> {
    let status = control::ask("GET", "/v1/status", &Value::Null)?;
    let hooks = status["hooks"].as_array().context("the status has hooks")?;
    let hook = hooks.iter().find(|hook| hook["name"] == "sys_enter").context("it has this one")?;
    ensure!(hook["state"] == "attached" || hook["state"] == "on-request", "it is {hook}");
    Ok(hook["state"] == "attached")
}

fn calls_are_looked_at_only_while_a_policy_asks_for_it(scene: &mut Scene<'_>) -> Outcome {
    ensure!(!watching()?, "attached before");
    scene.bind("files: []\n")?;
    ensure!(!watching()?, "attached for a policy that does not ask");
    scene.unbind()?;
    scene.bind("syscallEnforcement: kill\n")?;
    ensure!(watching()?, "not attached for a policy that asks");
    scene.unbind()?;
    ensure!(!watching()?, "still attached");
    Ok(())
}

fn in_audit_mode_calls_are_recorded_and_end_nothing(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind_as("scenario", "syscallEnforcement: kill\n", json!({"mode": "audit"}))?;
    process.works(&step!("personality"), "in audit mode")?;
    let expected =
        json!({"operation": "sys_enter", "object": {"name": "personality"}, "verdict": "audit", "errno": null});
    scene.record(&expected)?;
    process.works(&step!("nothing"), "in audit mode")?;
    scene.unbind_after(0)
}

fn run_under_a_policy_that_says_kill_starts_and_ends_as_ever(_scene: &mut Scene<'_>) -> Outcome {
    let kill = "syscallEnforcement: kill\n";
    let fine = run(kill, &[], &["/bin/busybox", "sh", "-c", "/bin/busybox true; exit 3"])?;
    ensure!(fine.status.code() == Some(3), "{}: {}", fine.status, String::from_utf8_lossy(&fine.stderr));
    // Each start is a race of its own between the two threads that hand over.
    for _ in 0..20 {
        let only_exec = run(
            &format!("{kill}syscalls:\n  - allow: [\"@default\", uname, write]\n"),
            &[],
            &["/bin/busybox", "uname"],
        )?;
        ensure!(only_exec.stdout == b"Linux\n", "{}: {}", only_exec.status, String::from_utf8_lossy(&only_exec.stderr));
    }
    // The filter comes first, and gives an error.
    let step = step!("personality");
    expect(once_in(kill, &step)?, EPERM, &step, "under a filter")
}
