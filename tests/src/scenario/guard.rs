//! A `run` without a daemon that is killed: its agent ends before enforcement does.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::harness::wait::LIMIT;
use crate::harness::{EACCES, Outcome, Process, Scenario, cgroup, policy};
use crate::{scenarios, step};

/// They must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    a_run_that_is_killed_ends_its_agent_before_enforcement_ends,
    a_run_whose_whole_cgroup_is_killed_ends_its_agent_before_enforcement_ends,
    no_policy_lets_an_agent_signal_who_ends_it_with_run,
    run_does_not_wait_for_its_programs_to_be_detached,
];

const PLACE: &str = "/tmp/scenarios-guard";
const SLICE: &str = "/agent-monitor-run.slice";

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

/// Waits until something is so. There is nothing to be woken by, so it is looked at again and again; with a pause, because
/// what is waited for needs the processor, and because opening files while programs are attached to that makes the
/// emulated machine fall over its own patched code now and then.
fn until(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> Outcome {
    let deadline = Instant::now() + LIMIT * 4;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// The cgroups of agents of `run`.
fn agents() -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup::directory(SLICE)).into_iter().flatten().flatten();
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

/// The processes that guard agents.
fn guards() -> anyhow::Result<Vec<String>> {
    let directory = cgroup::directory(SLICE).join("guards");
    if directory.exists() { members(&directory) } else { Ok(Vec::new()) }
}

/// Waits for what ends after `run`.
fn nothing_is_left() -> Outcome {
    until("nothing is attached", || Ok(!is_attached()?))?;
    until("no guard is left", || Ok(guards()?.is_empty()))
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
    nothing_is_left()?;
    let mut run = start(&["/bin/busybox", "sh", "-c", COMMAND, PLACE])?;
    placed(&run)?;
    until("the agent tries", || Ok(size("tried")? > 1))?;
    ensure!(is_attached()? && agents().len() == 1, "the agents are {:?}", agents());
    kill(&run)?;
    run.wait()?;
    // A cgroup in which anything lives can't be removed.
    until("the agent's cgroup is gone", || Ok(agents().is_empty()))?;
    nothing_is_left()?;
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
    nothing_is_left()?;
    let mut run = start(&["/bin/busybox", "sleep", "1000"])?;
    let mut process = Process::start()?;
    until("there is an agent in its cgroup", || {
        Ok(agents().first().is_some_and(|agent| members(agent).is_ok_and(|members| !members.is_empty())))
    })?;
    let guards = guards()?;
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
    until("the agent's cgroup is gone", || Ok(agents().is_empty()))?;
    nothing_is_left()
}

fn run_does_not_wait_for_its_programs_to_be_detached() -> Outcome {
    nothing_is_left()?;
    // Its end, and that of its output: nobody else may have that open.
    let output = prepared(&["/bin/busybox", "true"])?.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "run ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(agents().is_empty(), "the agents are {:?}", agents());
    ensure!(is_attached()?, "everything is detached already");
    nothing_is_left()
}
