//! The machine's memory runs out: the kernel ends an agent, and not what guards it. Nothing fills the memory here: the kernel
//! is asked to choose a process at once, which it does as if there were no memory.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::harness::wait::{limit, ready};
use crate::harness::{Outcome, Scenario, Scene, policy};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    lack_of_memory_ends_an_agent_and_neither_run_nor_the_daemon,
    run_says_that_it_may_be_ended_for_lack_of_memory,
];

/// The one that must have no daemon.
pub const ALONE: &[Scenario] = scenarios![Alone:
    lack_of_memory_ends_an_agent_and_not_run_without_a_daemon,
];

const PLACE: &str = "/tmp/scenarios-lack-of-memory";
const SPEC: &str = r#"
files:
  - {allow: [read], paths: ["/proc/self/oom_score_adj"]}
exec:
  - {allow: ["/bin/busybox"]}
"#;
/// Says what its process has, is denied a file, and stays: the one that the kernel may end.
const COMMAND: &str = "B=/bin/busybox; $B cat /proc/self/oom_score_adj; $B cat $0/secret; echo here; exec $B sleep 100";
/// What the caller of `run` has: half of the machine's memory more than any other process that may be chosen.
const CALLER: &str = "500";
/// What is never chosen has.
const NEVER: &str = "-1000";

/// A file of the kernel's that says something else meanwhile.
struct Changed {
    file: &'static str,
    before: String,
}

impl Changed {
    fn to(file: &'static str, value: &str) -> anyhow::Result<Self> {
        let before = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
        fs::write(file, value).with_context(|| format!("write {value} to {file}"))?;
        Ok(Self { file, before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = fs::write(self.file, &self.before);
    }
}

fn place() -> Outcome {
    fs::create_dir_all(PLACE)?;
    fs::write(format!("{PLACE}/secret"), "s")?;
    Ok(fs::write(format!("{PLACE}/policy.yaml"), policy::document("memory-scenario", SPEC, PLACE.as_ref()))?)
}

fn score(pid: u32) -> anyhow::Result<String> {
    let file = format!("/proc/{pid}/oom_score_adj");
    Ok(fs::read_to_string(&file).with_context(|| format!("read {file}"))?.trim().to_owned())
}

/// Starts `run` from a shell that may be chosen, in place of the shell.
fn start() -> anyhow::Result<Child> {
    let script = "echo $0 >/proc/self/oom_score_adj; exec agent-monitor run --policy $1/policy.yaml -- \
                  /bin/busybox sh -c \"$2\" $1";
    let mut shell = Command::new("/bin/busybox");
    shell.args(["sh", "-c", script, CALLER, PLACE, COMMAND]).stdin(Stdio::null());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start a shell")
}

fn an_agent_is_ended_and_not_run() -> Outcome {
    place()?;
    // Neither may this process be chosen, nor do the kernel's words about it mean that the kernel is in trouble: it says
    // them as warnings, with where it was.
    let _spared = Changed::to("/proc/self/oom_score_adj", NEVER)?;
    let _quiet = Changed::to("/proc/sys/kernel/printk", "4")?;
    let mut run = start()?;
    let mut output = BufReader::new(run.stdout.take().context("it has a pipe")?);
    let mut said = String::new();
    while !said.contains("here\n") {
        let is_there = ready(output.get_ref().as_fd(), libc::POLLIN, Instant::now() + limit() * 4);
        ensure!(is_there && output.read_line(&mut said)? > 0, "the command said {said:?} only");
    }
    let (found, own) = (said.lines().next().unwrap_or_default(), score(run.id())?);
    fs::write("/proc/sysrq-trigger", "f").context("ask the kernel to end a process")?;
    let mut text = String::new();
    run.stderr.take().context("it has a pipe")?.read_to_string(&mut text)?;
    let ended = run.wait()?;
    ensure!(ended.code() == Some(128 + 9), "it ended with {ended} (signal {:?}): {text}", ended.signal());
    ensure!(text.contains("1 operation was denied by the policy memory-scenario"), "it has no report: {text}");
    ensure!(own == NEVER && found == CALLER, "run has {own}, its command {found}, whose caller had {CALLER}");
    Ok(())
}

fn lack_of_memory_ends_an_agent_and_not_run_without_a_daemon() -> Outcome {
    an_agent_is_ended_and_not_run()
}

fn lack_of_memory_ends_an_agent_and_neither_run_nor_the_daemon(scene: &mut Scene<'_>) -> Outcome {
    let found = score(scene.daemon.pid())?;
    ensure!(found == NEVER, "the daemon has {found}");
    an_agent_is_ended_and_not_run()?;
    let found = score(scene.daemon.pid()).context("the daemon is gone")?;
    ensure!(found == NEVER, "the daemon has {found} afterwards");
    Ok(())
}

fn run_says_that_it_may_be_ended_for_lack_of_memory(_scene: &mut Scene<'_>) -> Outcome {
    /// `include/uapi/linux/capability.h`
    const CAP_SYS_RESOURCE: libc::c_ulong = 24;
    place()?;
    let mut run = Command::new("agent-monitor");
    run.args(["run", "--policy", &format!("{PLACE}/policy.yaml"), "--", "/bin/busybox", "cat"]);
    run.arg("/proc/self/oom_score_adj");
    let drop_it = || {
        // SAFETY: takes two numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: it makes one call, in the child.
    let output = unsafe { run.pre_exec(drop_it) }.output().context("start agent-monitor run")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it ended with {}: {text}", output.status);
    for word in ["oom_score_adj", "memory runs out", "CAP_SYS_RESOURCE"] {
        ensure!(text.contains(word), "it does not say {word}: {text}");
    }
    let (found, own) = (String::from_utf8_lossy(&output.stdout), score(std::process::id())?);
    ensure!(found.trim() == own, "the command has {found}, its caller {own}");
    Ok(())
}
