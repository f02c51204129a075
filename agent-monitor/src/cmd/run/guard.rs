//! `guard`: ends the agent of a `run` without a daemon where that `run` is killed, and keeps the programs attached until it
//! has. They are attached as long as anybody has their links open; so it has them too, and nothing else to do than to wait.
//!
//! What could end both at once it shares with `run` as little as it can: it has a session and a cgroup of its own (who
//! supervises a service kills its whole cgroup), blocks every signal, is not chosen where memory runs out, and no agent can
//! send it a signal. SIGKILL from root remains.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::bind::{Agent, Hierarchy};
use crate::cli::{Guard as Options, RUN_FAILED};
use crate::cmd::enter::join;
use crate::cmd::spare::spare;
use crate::daemon::node::Node;

/// It is told: nothing is left of the agent. It tells: it is ready.
const DONE: u8 = b'.';
/// How long it waits for killed processes before it kills again, and before it tries again what failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The guard of an agent. Where this is dropped, in whatever way, the guard ends the agent.
pub struct Guard {
    child: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// Starts the guard of an agent in which nothing is yet, in a cgroup that it shares with others of its kind.
    ///
    /// # Errors
    /// There is no process for it, or it could not get ready. It has said why.
    pub async fn start(node: &mut Node, own: &str, agent: &Agent) -> Result<Self> {
        let hierarchy = &node.directory.hierarchy;
        hierarchy.make_or_look_up(own).with_context(|| format!("cannot make the cgroup {own}"))?;
        let links = node.programs.hold().context("cannot have the kernel programs outlive this process")?;
        links.iter().try_for_each(inherit).context("cannot pass the kernel programs on")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("guard").arg("--mount").arg(hierarchy.mount());
        let cgroup = agent.path()?;
        command.arg("--agent").arg(cgroup).args(["--own", own]).current_dir("/");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("cannot start a process that guards the agent")?;
        // Nobody else is to inherit them.
        drop(links);
        let id = child.id().context("the process that guards the agent is gone")?;
        node.programs.protect(id).context("cannot protect the process that guards the agent")?;
        let (pipe, output) = (child.stdin.take(), child.stdout.take());
        let (pipe, mut output) = pipe.zip(output).context("the process that guards the agent has no pipes")?;
        output.read_u8().await.context("the process that guards the agent is not ready")?;
        Ok(Self { child, pipe })
    }

    /// Says that nothing is left of the agent. The guard ends, and with it the programs are detached: the kernel waits a tenth
    /// of a second and more for each (`rcu_tasks_one_gp()` in `kernel/rcu/tasks.h`), and nobody has to wait with it.
    pub async fn dismiss(mut self) {
        if let Err(error) = self.pipe.write_all(&[DONE]).await {
            let status = self.child.wait().await;
            tracing::warn!(%error, ?status, "the process that guarded the agent had ended before");
        }
    }
}

fn inherit(link: &OwnedFd) -> rustix::io::Result<()> {
    fcntl_setfd(link, FdFlags::empty())
}

/// Waits for the end of `run`, or its word that nothing is left to be done.
pub fn guard(options: &Options) -> ExitCode {
    let hierarchy = match ready(options) {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            say(&format!("error: {error:#}"));
            return ExitCode::from(RUN_FAILED);
        }
    };
    if is_done() {
        // Whoever reads what `run` prints to its end is not to wait.
        leave_output();
        return ExitCode::SUCCESS;
    }
    while let Err(error) = end(&hierarchy, &options.agent) {
        say(&format!("agent-monitor: cannot end the agent in {}: {error}; trying again", options.agent.display()));
        thread::sleep(PATIENCE);
    }
    let agent = options.agent.display();
    say(&format!("agent-monitor: run has ended before its agent; what was left of it in {agent} was killed"));
    ExitCode::FAILURE
}

fn ready(options: &Options) -> Result<Hierarchy> {
    SigSet::all().thread_block().context("cannot block signals")?;
    setsid().context("cannot make a session for the process that guards the agent")?;
    // Where that is refused, `run` says so of itself.
    spare();
    let hierarchy = Hierarchy::open(&options.mount, Path::new("/proc")).context("cannot use cgroups")?;
    join(&hierarchy.directory(&options.own)).with_context(|| format!("cannot go into the cgroup {}", options.own))?;
    let mut output = std::io::stdout();
    output.write_all(&[DONE]).and_then(|()| output.flush()).context("cannot say that the agent is guarded")?;
    Ok(hierarchy)
}

/// Whether `run` says that it has done all by itself; its end says that it has not.
fn is_done() -> bool {
    let mut byte = [0];
    loop {
        match std::io::stdin().read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(1) => return true,
            _ => return false,
        }
    }
}

/// Closes what it has of the standard output and error of `run`. Where there is no `/dev/null` its own end does that later.
fn leave_output() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = dup2_stdout(&null).and_then(|()| dup2_stderr(&null));
    }
}

/// Kills the agent and removes its cgroup. It is not done before the cgroup is gone: what was on its way into it finds none
/// then.
fn end(hierarchy: &Hierarchy, agent: &Path) -> std::io::Result<()> {
    hierarchy.kill(agent)?;
    hierarchy.wait_empty(agent, PATIENCE)?;
    hierarchy.remove(agent)
}

/// Who should read it may be gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
