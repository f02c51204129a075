//! `enter`: the step between `run` and its command. It goes into the agent's cgroup under the policy's filter for system
//! calls and executes the command there, so that the command is bound from its first instruction.
//!
//! The filter must be installed before the cgroup is entered: in it the right to do so is the policy's to give. And the
//! cgroup must be entered after the filter is installed, by a call that the policy need not allow. So there are two threads:
//! the main one puts the filter on itself, the other one, without a filter, moves the process. Exec by the first ends the
//! second.

use std::fs::{self, OpenOptions};
use std::hint::spin_loop;
use std::io::{Error, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{getpgrp, setsid};
use rustix::termios::tcsetpgrp;
use seccompiler::BpfProgram;

use super::spare::give_back;
use super::{end_with, standard};
use crate::cli::{Enter, RUN_FAILED};
use crate::seccomp::{Filter, install};

/// The command can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;

/// How far the two threads are.
static STAGE: AtomicU32 = AtomicU32::new(BARE);
const BARE: u32 = 0;
const FILTERED: u32 = 1;
const INSIDE: u32 = 2;
const FAILED: u32 = 3;
/// The errno with which exec failed.
static EXEC_ERRNO: AtomicI32 = AtomicI32::new(0);

/// Writing to it moves a process into its cgroup.
pub const MEMBERS: &str = "cgroup.procs";

/// Executes the command; comes back only where that failed.
pub fn enter(options: Enter) -> ExitCode {
    let Some((program, arguments)) = options.command.split_first() else {
        return fail(RUN_FAILED, "no command is given");
    };
    let filter = match prepare(&options) {
        Ok(filter) => filter,
        Err(error) => return fail(RUN_FAILED, &format!("{error:#}")),
    };
    let (cgroup, name) = (options.cgroup.clone(), program.clone());
    let second = thread::Builder::new().spawn(move || move_and_watch(&cgroup, &name));
    if let Err(error) = second {
        return fail(RUN_FAILED, &format!("cannot start a thread: {error}"));
    }
    let mut command = Command::new(program);
    command.args(arguments);
    let last = move || {
        install(&filter)?;
        STAGE.store(FILTERED, Ordering::Release);
        // Without a call: none may be allowed from here on but exec.
        while STAGE.load(Ordering::Acquire) == FILTERED {
            spin_loop();
        }
        Ok(())
    };
    // SAFETY: nothing is forked: it runs in this process as it is, right before exec, and makes two calls.
    unsafe { command.pre_exec(last) };
    // From here on this is the agent.
    let error = command.exec();
    if STAGE.load(Ordering::Acquire) == BARE {
        let why = "starting a command under a filter for system calls needs CAP_SYS_ADMIN";
        return fail(RUN_FAILED, &format!("cannot install the filter for system calls: {error}; {why}"));
    }
    // What this thread may still do is the policy's to say; the other one tells what happened, and ends the process.
    EXEC_ERRNO.store(error.raw_os_error().unwrap_or(libc::EINVAL), Ordering::Relaxed);
    STAGE.store(FAILED, Ordering::Release);
    loop {
        spin_loop();
    }
}

/// Makes of this process what the command is to be, but for the filter, which it gives, and for the cgroup.
fn prepare(options: &Enter) -> Result<BpfProgram> {
    // The programs in the kernel live no longer than the process that loaded them, so neither may the command.
    end_with(options.parent)?;
    set_apart(options.session, options.foreground)?;
    unblock(&options.unblock)?;
    // While this is still the monitor: whether an agent may write there is the policy's to say.
    if let Some(score) = options.oom_score_adj {
        let given = give_back(score);
        given.with_context(|| format!("cannot give the command the oom_score_adj of its caller, {score}"))?;
    }
    close_others(&options.keep_descriptors).context("cannot close the descriptors that the command shall not have")?;
    let filter = Filter { allowed: options.syscalls.clone(), foreign: options.foreign, audit: options.audit };
    // Its text holds what caused it.
    filter.program().map_err(|error| anyhow!("{error}"))
}

/// The second thread: moves the process once the first one is filtered, and then waits for the end that exec is, or for its
/// failure.
fn move_and_watch(cgroup: &Path, program: &std::ffi::OsStr) {
    let fail =
        |error: Error| -> ! { end(RUN_FAILED, &format!("cannot go into the cgroup {}: {error}", cgroup.display())) };
    let mut entrance = match OpenOptions::new().write(true).open(cgroup.join(MEMBERS)) {
        Ok(entrance) => entrance,
        Err(error) => fail(error),
    };
    let own = std::process::id().to_string();
    while STAGE.load(Ordering::Acquire) == BARE {
        thread::yield_now();
    }
    if let Err(error) = entrance.write_all(own.as_bytes()) {
        fail(error);
    }
    // From here on this thread is the agent's too: it makes no call that nobody need allow, not even to close the file,
    // which exec does.
    std::mem::forget(entrance);
    STAGE.store(INSIDE, Ordering::Release);
    while STAGE.load(Ordering::Acquire) == INSIDE {
        spin_loop();
    }
    let (code, what) = exec_failure(&Error::from_raw_os_error(EXEC_ERRNO.load(Ordering::Relaxed)));
    end(code, &format!("cannot execute {}: {what}", program.display()));
}

/// Makes a session, or comes into the foreground of the session's terminal: the command must have neither the terminal nor
/// the process group of who started it, for the kernel lets it send signals to both.
fn set_apart(session: bool, foreground: Option<u8>) -> Result<()> {
    if session {
        setsid().context("cannot make a session for the command")?;
    }
    if let Some(number) = foreground {
        // Who comes from the background is stopped by this signal, but not where it is blocked.
        let stop = SigSet::from_iter([Signal::SIGTTOU]);
        stop.thread_block().context("cannot block a signal")?;
        tcsetpgrp(standard(number), getpgrp()).context("cannot come into the foreground of the command's terminal")?;
        stop.thread_unblock().context("cannot unblock a signal")?;
    }
    Ok(())
}

/// Unblocks signals for the command.
fn unblock(numbers: &[i32]) -> Result<()> {
    let signals = numbers.iter().map(|number| Signal::try_from(*number).with_context(|| format!("signal {number}")));
    let signals = signals.collect::<Result<SigSet>>().context("cannot unblock what is no signal")?;
    signals.thread_unblock().context("cannot unblock signals")
}

/// Moves this process into a cgroup.
pub fn join(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join(MEMBERS), std::process::id().to_string())
}

/// Closes every descriptor but the standard ones and those that are kept: what it refers to was opened outside of the
/// agent, so no rule was asked.
pub fn close_others(kept: &[u32]) -> Result<()> {
    const STANDARD: u32 = 3;
    const LIST: &str = "/proc/self/fd";
    let entries = fs::read_dir(LIST).with_context(|| format!("list {LIST}"))?;
    // The list's own descriptor is closed before any other is.
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>().context(LIST)?;
    let open: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    if let Some(missing) = kept.iter().find(|number| !open.contains(number)) {
        bail!("--keep-fd {missing}: no such descriptor is open");
    }
    let is_handed_on = |number: &u32| *number < STANDARD || kept.contains(number);
    if let Some(ring) = open.iter().find(|number| is_handed_on(number) && is_ring(**number)) {
        bail!(
            "descriptor {ring} is an io_uring of somebody outside: what the command puts into it would be done in that one's name"
        );
    }
    for number in open.into_iter().filter(|number| !is_handed_on(number)) {
        match nix::unistd::close(number.cast_signed()) {
            Ok(()) | Err(nix::Error::EBADF) => {}
            Err(error) => bail!("close descriptor {number}: {error}"),
        }
    }
    Ok(())
}

/// Whether a descriptor is an io_uring. A thread of its maker's may take from it what anybody puts into its memory.
fn is_ring(number: u32) -> bool {
    fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|name| name == Path::new("anon_inode:[io_uring]"))
}

fn exec_failure(error: &Error) -> (u8, String) {
    match error.kind() {
        ErrorKind::NotFound => (NOT_FOUND, "not found".to_owned()),
        // What the filter gives; no policy's denial of a file does.
        ErrorKind::PermissionDenied if error.raw_os_error() == Some(libc::EPERM) => {
            (NOT_EXECUTABLE, "operation not permitted; does the policy's `syscalls` allow `execve`?".to_owned())
        }
        ErrorKind::PermissionDenied => (NOT_EXECUTABLE, "permission denied".to_owned()),
        _ => (NOT_EXECUTABLE, error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

fn end(code: u8, message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(code.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_status_that_shells_give() {
        assert_eq!(exec_failure(&ErrorKind::NotFound.into()).0, 127);
        assert_eq!(exec_failure(&ErrorKind::PermissionDenied.into()).0, 126);
        assert_eq!(exec_failure(&Error::from_raw_os_error(libc::ENOEXEC)).0, 126);
        assert!(exec_failure(&Error::from_raw_os_error(libc::EPERM)).1.contains("execve"));
    }
}
