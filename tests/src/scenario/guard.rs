//! A `run` without a daemon that is killed: its agent ends before enforcement does.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Process, Scenario, cgroup, changes, policy};
use crate::{scenarios, step};

/// They must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    a_run_that_is_killed_ends_its_agent_before_enforcement_ends,
    a_run_whose_whole_cgroup_is_killed_ends_its_agent_before_enforcement_ends,
    no_policy_lets_an_agent_signal_who_ends_it_with_run,
    run_does_not_wait_for_its_programs_to_be_detached,
];

const PLACE: &str = "/tmp/scenarios-guard";

const SPEC: &str = r#"
files:
  - {allow: [all], paths: ["$W/tried", "$W/leaked"]}
  - {allow: [read, write], paths: ["/dev/null", "anon:pipe"]}
exec:
  - {allow: ["/bin/busybox", "/root/scenarios"]}
privileges:
  - {allow: [signal-same-agent, signal-any]}
"#;

/// Tries to read what is forbidden without an end, from a session of its own: nothing but its cgroup ties it to `run`.
const COMMAND: &str = "/bin/busybox setsid /bin/busybox sh -c \
    'while :; do if /bin/busybox cat $0/secret >>$0/leaked; then :; else echo >>$0/tried; fi; done' $0 & \
    /bin/busybox sleep 1000";

/// Longest wait for a `run`: all programs are attached before its command starts.
fn run_limit() -> Duration {
    limit() * 4
}

/// Waits until the agent has tried this often.
fn until_tried(times: u64) -> Outcome {
    let tried = || Ok(size("tried")? >= times);
    changes::until(&Path::new(PLACE).join("tried"), libc::IN_MODIFY, run_limit(), "the agent tries", tried)
}

/// Waits until no agent has a cgroup and no guard is left; then no program is attached.
fn until_all_is_gone() -> Outcome {
    // A cgroup in which anything lives can't be removed.
    changes::until(
        &cgroup::directory(cgroup::RUN),
        libc::IN_DELETE,
        run_limit(),
        "the agent's cgroup is gone",
        || Ok(agents().is_empty()),
    )?;
    until_nothing_is_attached()
}

/// Waits for the guard of a `run` that has ended, also of one before: a process leaves its cgroup after it has closed what it
/// had open (`do_exit()` in `kernel/exit.c`), and who closes a link detaches its program.
fn until_nothing_is_attached() -> Outcome {
    cgroup::until_no_guard()?;
    ensure!(!is_attached()?, "a program is attached still");
    Ok(())
}

/// The cgroups of agents of `run`.
fn agents() -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup::directory(cgroup::RUN)).into_iter().flatten().flatten();
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("guard-scenario-"));
    entries.map(|entry| entry.path()).filter(named).collect()
}

/// The processes of a cgroup.
fn members(directory: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).context("look into a cgroup")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Whether any program is attached by a link.
fn is_attached() -> anyhow::Result<bool> {
    match Process::start()?.run(&step!("bpf-first", "link"))? {
        (0, _) => Ok(true),
        (errno, _) => {
            ensure!(errno == libc::ENOENT, "looking for links gave errno {errno}");
            Ok(false)
        }
    }
}

fn start(command: &[&str]) -> anyhow::Result<Child> {
    prepared(command)?.spawn().context("start agent-monitor run")
}

/// `run` with this command, without a terminal or anything to read or write.
fn prepared(command: &[&str]) -> anyhow::Result<Command> {
    fs::create_dir_all(PLACE)?;
    for name in ["tried", "leaked"] {
        fs::write(format!("{PLACE}/{name}"), "")?;
    }
    fs::write(format!("{PLACE}/secret"), "secret")?;
    let policy = format!("{PLACE}/policy.yaml");
    fs::write(&policy, policy::document("guard-scenario", SPEC, PLACE.as_ref()))?;
    let mut run = Command::new("agent-monitor");
    run.args(["run", "--policy", &policy, "--"]).args(command);
    run.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(run)
}

fn size(name: &str) -> anyhow::Result<u64> {
    Ok(fs::metadata(format!("{PLACE}/{name}"))?.len())
}

/// `run` is killed in this way while its agent tries what is forbidden.
fn killed(placed: impl FnOnce(&Child) -> Outcome, kill: impl FnOnce(&Child) -> Outcome) -> Outcome {
    until_nothing_is_attached()?;
    let mut run = start(&["/bin/busybox", "sh", "-c", COMMAND, PLACE])?;
    placed(&run)?;
    until_tried(2)?;
    ensure!(is_attached()? && agents().len() == 1, "the agents are {:?}", agents());
    kill(&run)?;
    run.wait()?;
    until_all_is_gone()?;
    ensure!(size("leaked")? == 0, "the forbidden file was read");
    Ok(())
}

fn kill(pid: i32) -> Outcome {
    // SAFETY: takes two numbers.
    ensure!(unsafe { libc::kill(pid, libc::SIGKILL) } == 0, "kill {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

fn a_run_that_is_killed_ends_its_agent_before_enforcement_ends() -> Outcome {
    // Its process group, as who supervises it may do.
    killed(|_| Ok(()), |run| kill(-run.id().cast_signed()))
}

fn a_run_whose_whole_cgroup_is_killed_ends_its_agent_before_enforcement_ends() -> Outcome {
    let unit = cgroup::Cgroup::make("/scenario-unit")?;
    let directory = unit.directory();
    let kill = |_: &Child| Ok(fs::write(directory.join("cgroup.kill"), "1")?);
    killed(|run| cgroup::enter(&directory, run.id()), kill)
}

fn no_policy_lets_an_agent_signal_who_ends_it_with_run() -> Outcome {
    until_nothing_is_attached()?;
    let mut run = start(&["/bin/busybox", "sh", "-c", "echo >>$0/tried; exec /bin/busybox sleep 1000", PLACE])?;
    let mut process = Process::start()?;
    // Its command runs, so the agent is in its cgroup.
    until_tried(1)?;
    let guards = members(&cgroup::directory(cgroup::GUARDS))?;
    ensure!(guards.len() == 1, "the guards are {guards:?}");
    let agent = agents().pop().context("the agent is gone")?;
    cgroup::enter(&agent, process.pid())?;
    let outsider = Process::start()?;
    process.works(&step!("kill", outsider.pid().to_string(), "0"), "to any outsider")?;
    for pid in [guards.concat(), run.id().to_string()] {
        for signal in ["0", "15", "9", "19"] {
            process.expect(&step!("kill", pid, signal), EACCES, "to who ends the agent")?;
        }
    }
    kill(run.id().cast_signed())?;
    run.wait()?;
    until_all_is_gone()
}

fn run_does_not_wait_for_its_programs_to_be_detached() -> Outcome {
    until_nothing_is_attached()?;
    // Its end, and that of its output: nobody else may have that open.
    let output = prepared(&["/bin/busybox", "true"])?.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "run ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(agents().is_empty(), "the agents are {:?}", agents());
    ensure!(is_attached()?, "everything is detached already");
    until_all_is_gone()
}
