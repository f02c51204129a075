//! `lead`: the leader of the session in which a command has its terminal. It starts the command's parent (`tend`), stops, and
//! is brought into the agent's cgroup as it is.
//!
//! The kernel programs let an agent make process groups and use the terminal only in a session that an agent's process leads,
//! where nobody else can be hurt. The command itself can't lead it: see `tend`. Nor may its leader get an agent anything: it
//! is under a filter that lets it do little more than wait. And it must need nothing that the policy may not allow: what is
//! stopped makes no system call, where one that is not allowed may end who makes it.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use rustix::process::{Signal, getpid, ioctl_tiocsctty, kill_process, setsid};

use crate::cli::{Lead, RUN_FAILED};
use crate::cmd::enter::close_others;
use crate::cmd::spare::give_back;
use crate::cmd::{end_with, standard};
use crate::seccomp::{Filter, install};

/// Leads the session until it is killed; comes back only where that can't be.
pub fn lead(options: &Lead) -> ExitCode {
    let Err(error) = session(options);
    eprintln!("error: {error:#}");
    ExitCode::from(RUN_FAILED)
}

fn session(options: &Lead) -> Result<Infallible> {
    end_with(options.parent)?;
    setsid().context("cannot make a session for the command")?;
    let terminal = standard(options.terminal);
    ioctl_tiocsctty(terminal).context("cannot make the command's terminal that of its session")?;
    let own = getpid();
    let mut tend = Command::new("/proc/self/exe");
    tend.arg("tend").arg("--parent").arg(own.to_string()).args(&options.tend);
    // A terminal signals whole groups, and this one's may be chosen by the agent.
    tend.process_group(0);
    // Nobody waits for it: it tells `run` how the command ended, and ends with `run`.
    tend.spawn().context("cannot start a process for the command")?;
    if let Some(score) = options.oom_score_adj {
        give_back(score).context("cannot give the session the oom_score_adj of its caller")?;
    }
    close_others(&[]).context("cannot close the descriptors that the agent shall not have")?;
    let calls = [libc::SYS_kill, libc::SYS_write, libc::SYS_pause, libc::SYS_restart_syscall, libc::SYS_exit_group];
    let filter = Filter::only(&calls);
    install(&filter.program()?).context("cannot install a filter for system calls, which needs CAP_SYS_ADMIN")?;
    // It becomes the agent's where it has stopped. Nobody needs it to go on; where the agent lets it, it waits.
    kill_process(own, Signal::STOP).context("cannot stop")?;
    loop {
        nix::unistd::pause();
    }
}
