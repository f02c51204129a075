//! `tend`: the parent of a command that has a terminal. The command is a job of its session, with a process group of its own,
//! as under a shell: the kernel stops a group from its terminal (^Z) only where a parent in the same session, but another
//! group, can let it go on.
//!
//! It is no part of the agent, which can't signal it. But a terminal asks nobody when it stops or ends a group, and the agent
//! may put its processes into any group of its session: so this one has a group of its own and blocks what terminals send.
//!
//! It ends, and the command with it, when `run` does or lets go of the pipe of orders. No signal tells it of its parent's end
//! as others are told: its parent, the session's leader, is the agent's, and has no right to send it one.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blocked};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getppid, waitid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::child::exit_code;
use super::job;
use super::session::{STOPPED, TO_FOREGROUND};
use crate::cli::{RUN_FAILED, Tend};
use crate::cmd::enter::MEMBERS;
use crate::cmd::{small_runtime, standard};

/// What a terminal sends to whole process groups.
const OF_TERMINALS: [Blocked; 6] =
    [Blocked::SIGTTIN, Blocked::SIGTTOU, Blocked::SIGTSTP, Blocked::SIGINT, Blocked::SIGQUIT, Blocked::SIGHUP];

/// Starts the command and tends it until it ends, and tells its exit status.
pub fn tend(options: &Tend) -> ExitCode {
    match small_runtime().and_then(|runtime| runtime.block_on(tend_and_tell(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(RUN_FAILED)
        }
    }
}

async fn tend_and_tell(options: &Tend) -> Result<()> {
    let orders = OpenOptions::new().open_receiver(path_of(options.orders)).context("cannot open the pipe of orders")?;
    let mut news = OpenOptions::new().open_sender(path_of(options.news)).context("cannot open the pipe for news")?;
    // Opened anew they are closed by exec. These two would go on to the agent.
    for number in [options.orders, options.news] {
        nix::unistd::close(number.cast_signed()).with_context(|| format!("cannot close descriptor {number}"))?;
    }
    let leader = Pid::from_raw(options.parent.cast_signed()).context("the session's leader has no process id")?;
    let started = block().and_then(|blocked| start(options, leader, &blocked));
    let id = started.as_ref().ok().and_then(Child::id).unwrap_or_default();
    news.write_u32(id).await.context("cannot tell of the command")?;
    let ended = match started {
        Ok(child) => follow(child, leader, standard(options.terminal), orders, &mut news).await,
        Err(error) => Err(error),
    };
    let code = *ended.as_ref().unwrap_or(&RUN_FAILED);
    news.write_u16(code.into()).await.context("cannot tell how the command ended")?;
    ended.map(drop)
}

/// Blocks the signals of terminals; gives those that were not blocked before.
fn block() -> Result<Vec<Blocked>> {
    let set = SigSet::from_iter(OF_TERMINALS);
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("cannot block signals")?;
    Ok(OF_TERMINALS.into_iter().filter(|signal| !before.contains(*signal)).collect())
}

fn start(options: &Tend, leader: Pid, blocked: &[Blocked]) -> Result<Child> {
    bring_in(leader, &options.cgroup)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("enter").arg("--parent").arg(std::process::id().to_string());
    command.args(options.foreground.then(|| format!("--foreground={}", options.terminal)));
    command.args(blocked.iter().map(|signal| format!("--unblock={}", *signal as i32)));
    command.args(&options.enter).process_group(0).kill_on_drop(true);
    command.spawn().context("cannot start a process for the command")
}

async fn follow(
    mut child: Child,
    leader: Pid,
    terminal: BorrowedFd<'_>,
    mut orders: Receiver,
    news: &mut Sender,
) -> Result<u8> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the command has no process id")?;
    let mut changed = signal(SignalKind::child()).context("cannot receive signals")?;
    // It may have stopped before we could hear of it.
    let mut stopped = stopped_by(pid);
    loop {
        if let Some(signal) = stopped.take() {
            news.write_u16(STOPPED | u16::from(signal)).await.context("cannot tell of the command")?;
        }
        tokio::select! {
            // In this order: its id is its own until it was waited for.
            biased;
            order = orders.read_u8() => match order {
                // Where the command has given the foreground to another of its groups, that one has it.
                Ok(TO_FOREGROUND) if tcgetpgrp(terminal) == Ok(leader) => drop(tcsetpgrp(terminal, pid)),
                Ok(TO_FOREGROUND) => {}
                Ok(number) => Signal::from_named_raw(number.into()).into_iter().for_each(|signal| job::signal(pid, signal)),
                Err(_) => {
                    child.start_kill().context("cannot end the command")?;
                    bail!("the process that started this one is gone");
                }
            },
            _ = changed.recv() => stopped = stopped_by(pid),
            status = child.wait() => return Ok(exit_code(status.context("cannot wait for the command")?)),
        }
    }
}

/// Waits until the session's leader has stopped, and brings it into the agent's cgroup: before that the session is not the
/// agent's, and its command could make no process groups.
fn bring_in(leader: Pid, cgroup: &Path) -> Result<()> {
    while !job::is_stopped(leader) {
        if getppid() != Some(leader) {
            bail!("the leader of the command's session has ended");
        }
        thread::yield_now();
    }
    let members = cgroup.join(MEMBERS);
    let brought = fs::write(&members, leader.as_raw_nonzero().to_string());
    brought.with_context(|| format!("cannot bring the leader of the command's session into {}", members.display()))
}

/// The name of the pipe that is this descriptor.
fn path_of(number: u32) -> String {
    format!("/proc/self/fd/{number}")
}

/// The signal by which the command was stopped since this was asked last.
fn stopped_by(pid: Pid) -> Option<u8> {
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG).ok()??;
    status.stopping_signal()?.try_into().ok()
}
