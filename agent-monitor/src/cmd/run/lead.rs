//! `lead`: the leader of the session in which a command has its terminal. It starts the command's parent (`tend`), goes into
//! the agent's cgroup, and does nothing.
//!
//! The kernel programs let an agent make process groups and use the terminal only in a session that an agent's process leads,
//! where nobody else can be hurt. The command itself can't lead it: see `tend`. Nor may its leader get an agent anything: it
//! goes there under a filter that lets it do little more than wait.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use rustix::process::{ioctl_tiocsctty, setsid};

use crate::cli::{Lead, RUN_FAILED};
use crate::cmd::enter::{MEMBERS, close_others};
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
    let own = std::process::id().to_string();
    let mut tend = Command::new("/proc/self/exe");
    tend.arg("tend").arg("--parent").arg(&own).args(&options.tend);
    // Nobody waits for it: it tells `run` how the command ended, and ends with `run`.
    tend.spawn().context("cannot start a process for the command")?;
    if let Some(score) = options.oom_score_adj {
        give_back(score).context("cannot give the session the oom_score_adj of its caller")?;
    }
    close_others(&[]).context("cannot close the descriptors that the agent shall not have")?;
    let members = options.cgroup.join(MEMBERS);
    let entrance = OpenOptions::new().write(true).open(&members);
    let mut entrance = entrance.with_context(|| format!("cannot open {}", members.display()))?;
    let calls = [libc::SYS_write, libc::SYS_close, libc::SYS_pause, libc::SYS_restart_syscall, libc::SYS_exit_group];
    let filter = Filter::only(&calls);
    install(&filter.program()?).context("cannot install a filter for system calls, which needs CAP_SYS_ADMIN")?;
    entrance
        .write_all(own.as_bytes())
        .with_context(|| format!("cannot go into the cgroup of {}", members.display()))?;
    // From here on this is the agent's, and has nothing open that the command does not have.
    drop(entrance);
    loop {
        nix::unistd::pause();
    }
}
