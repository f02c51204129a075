//! The command as a child: started in its cgroup, signals passed on, waited for.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Run;
use crate::cmd::spare::spare;
use crate::seccomp::Filter;

/// A command that runs.
pub struct Running {
    child: Child,
    /// Its process id.
    pub pid: u32,
}

/// Starts the command in the cgroup with this directory, under this filter. Standard input, output and error are ours.
///
/// # Errors
/// No process can be started.
pub fn start(cgroup: &Path, filter: &Filter, options: &Run) -> Result<Running> {
    // Before the command can fill the memory. With a daemon, too: the command ends with us, what else the agent runs does not.
    let score = spare();
    let mut command = Command::new("/proc/self/exe");
    command.arg("enter").arg("--cgroup").arg(cgroup).arg("--parent").arg(std::process::id().to_string());
    command.args(options.keep_descriptors.iter().map(|number| format!("--keep-fd={number}")));
    command.arg("--syscalls").arg(filter.allowed.to_string());
    command.args(filter.foreign.then_some("--foreign")).args(filter.audit.then_some("--audit"));
    command.args(score.map(|score| format!("--oom-score-adj={score}")));
    command.arg("--").args(&options.command).kill_on_drop(true);
    let child = command.spawn().context("cannot start a process for the command")?;
    let pid = child.id().context("the process for the command is gone")?;
    Ok(Running { child, pid })
}

impl Running {
    /// Waits for its end and passes signals on meanwhile. A second signal of those that ask for an end calls `insist`.
    ///
    /// # Errors
    /// Signals can't be received, or the child not waited for.
    pub async fn wait(&mut self, mut insist: impl FnMut()) -> Result<u8> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut quit = signal(SignalKind::quit())?;
        let mut user1 = signal(SignalKind::user_defined1())?;
        let mut user2 = signal(SignalKind::user_defined2())?;
        let mut asked = false;
        loop {
            let (signal, ends) = tokio::select! {
                status = self.child.wait() => return Ok(exit_code(status.context("cannot wait for the command")?)),
                _ = terminate.recv() => (Signal::TERM, true),
                _ = hangup.recv() => (Signal::HUP, true),
                // What is typed on a terminal reaches the command without us: it is in our process group.
                _ = interrupt.recv() => (Signal::INT, !in_foreground()),
                _ = quit.recv() => (Signal::QUIT, !in_foreground()),
                _ = user1.recv() => (Signal::USR1, false),
                _ = user2.recv() => (Signal::USR2, false),
            };
            let typed = matches!(signal, Signal::INT | Signal::QUIT) && in_foreground();
            if !typed {
                self.send(signal);
            }
            if ends && asked {
                insist();
            }
            asked |= ends;
        }
    }

    fn send(&self, signal: Signal) {
        // Not waited for yet, so the id is still its own.
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // It may have ended in this moment.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Whether we are in the foreground of a terminal, which then sends its signals to the command too.
fn in_foreground() -> bool {
    tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp())
}

/// The exit status that a shell would give.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(i32::from(u8::MAX));
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_is_the_commands_or_128_and_the_signal() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(255 << 8)), 255);
    }
}
