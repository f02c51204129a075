//! The command as a child: started in its cgroup, in a session of its own, signals passed on, waited for.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::job;
use super::session::{Event, Session};
use super::signals::Signals;
use super::terminal::Terminal;
use crate::cli::Run;
use crate::cmd::spare::spare;
use crate::seccomp::Filter;

/// A command that runs.
pub struct Running {
    /// The command, or the leader of its session.
    child: Child,
    /// Its session, where that has a terminal.
    session: Option<Session>,
    signals: Signals,
    /// Directory of the agent's cgroup.
    cgroup: PathBuf,
    /// Its process id.
    pub pid: u32,
}

/// Starts the command in the cgroup with this directory, under this filter. Standard input, output and error are ours; those
/// that are a terminal are one of its own instead.
///
/// # Errors
/// No process can be started, or no terminal made.
pub async fn start(cgroup: &Path, filter: &Filter, options: &Run) -> Result<Running> {
    // Caught from here on: nothing may end us and leave the command.
    let signals = Signals::new().context("cannot receive signals")?;
    // Before the command can fill the memory. With a daemon, too: the command ends with us, what else the agent runs does not.
    let score = spare().map(|score| format!("--oom-score-adj={score}"));
    let enter = enter(cgroup, filter, options, score.as_deref());
    let mut command = Command::new("/proc/self/exe");
    command.kill_on_drop(true);
    let own = std::process::id().to_string();
    if let Some(terminal) = Terminal::find()? {
        command.arg("lead").arg("--parent").arg(own).args(score);
        let (child, session, pid) = Session::start(command, &enter, terminal, cgroup).await?;
        return Ok(Running { child, session: Some(session), signals, cgroup: cgroup.to_owned(), pid });
    }
    command.arg("enter").arg("--parent").arg(own).arg("--session").args(&enter);
    let child = command.spawn().context("cannot start a process for the command")?;
    let pid = child.id().context("the process for the command is gone")?;
    Ok(Running { child, session: None, signals, cgroup: cgroup.to_owned(), pid })
}

/// What `enter` is told, but for who its parent is and what becomes of the session.
fn enter(cgroup: &Path, filter: &Filter, options: &Run, score: Option<&str>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--cgroup".into(), cgroup.into()];
    arguments.extend(options.keep_descriptors.iter().map(|number| format!("--keep-fd={number}").into()));
    arguments.extend(["--syscalls".into(), filter.allowed.to_string().into()]);
    arguments.extend(filter.foreign.then(|| "--foreign".into()));
    arguments.extend(filter.audit.then(|| "--audit".into()));
    arguments.extend(score.map(Into::into));
    arguments.push("--".into());
    arguments.extend(options.command.iter().cloned());
    arguments
}

impl Running {
    /// Waits for its end and passes on meanwhile what is typed, shown and signalled. A second signal of those that ask for an
    /// end calls `insist`.
    ///
    /// # Errors
    /// The child can't be waited for, or the terminal not used.
    pub async fn wait(&mut self, mut insist: impl FnMut()) -> Result<u8> {
        let mut code = None;
        let mut asked = false;
        loop {
            tokio::select! {
                status = self.child.wait(), if code.is_none() => {
                    let ended = exit_code(status.context("cannot wait for the command")?);
                    let Some(session) = &mut self.session else { return Ok(ended) };
                    // The leader of its session, and so the command.
                    code = Some(ended);
                    session.show_the_rest();
                }
                event = next(&mut self.session) => match (event, code) {
                    (Event::AllShown, Some(code)) => return self.end(code).await,
                    (event, _) => {
                        match event {
                            Event::Ended(ended) => code = Some(ended),
                            // The command has ended with it; its status is the leader's, which is ended now.
                            Event::Abandoned => drop(self.child.start_kill()),
                            _ => {}
                        }
                        self.session.iter_mut().for_each(|session| session.follow(&event));
                    }
                },
                signal = self.signals.next() => {
                    let ends = matches!(signal, Signal::TERM | Signal::HUP)
                        // What is typed is for the command to judge, however often.
                        || matches!(signal, Signal::INT | Signal::QUIT) && !self.signals.are_typed();
                    match code {
                        // Whoever should see the rest does not take it.
                        Some(code) if ends => return self.end(code).await,
                        _ => self.signal(signal),
                    }
                    if ends && asked {
                        insist();
                    }
                    asked |= ends;
                }
            }
        }
    }

    /// Ends the leader of the session, which is not to be taken for something that the command has left behind.
    async fn end(&mut self, code: u8) -> Result<u8> {
        // It has ended where the command did not end by itself.
        if self.child.id().is_some() {
            self.child.kill().await.context("cannot end the leader of the command's session")?;
        }
        Ok(code)
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(session) = &mut self.session {
            return session.signal(signal);
        }
        // Not waited for yet, so the id is still its own.
        let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) else { return };
        match signal {
            Signal::WINCH => {}
            // Without a terminal in its session the command could not be let go on, so the kernel would not stop it.
            Signal::TSTP if job::has_a_shell() => job::stop(&self.cgroup),
            Signal::TSTP => {}
            Signal::CONT => job::go_on(&self.cgroup),
            signal => job::signal(pid, signal),
        }
    }
}

/// The next event of a session; none where there is no session.
async fn next(session: &mut Option<Session>) -> Event {
    match session {
        Some(session) => session.next().await,
        None => std::future::pending().await,
    }
}

/// The exit status that a shell would give.
pub fn exit_code(status: ExitStatus) -> u8 {
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
