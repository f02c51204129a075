//! `enter`: the step between `run` and its command. It goes into the agent's cgroup and executes the command there, so
//! that the command is bound from its first instruction. Runs before anything that makes a thread.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::cli::{Enter, RUN_FAILED};

/// The command can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;

/// Executes the command; comes back only where that failed.
pub fn enter(options: &Enter) -> ExitCode {
    let Some((program, arguments)) = options.command.split_first() else {
        return fail(RUN_FAILED, "no command is given");
    };
    // The programs in the kernel live no longer than the process that loaded them, so neither may the command.
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_err() || getppid().is_none_or(|parent| parent.as_raw_nonzero().get().unsigned_abs() != options.parent) {
        return fail(RUN_FAILED, "the process that started this one is gone");
    }
    if let Err(error) = close_others(&options.keep_descriptors) {
        return fail(RUN_FAILED, &format!("cannot close the descriptors that the command shall not have: {error:#}"));
    }
    if let Err(error) = join(&options.cgroup) {
        return fail(RUN_FAILED, &format!("cannot go into the cgroup {}: {error}", options.cgroup.display()));
    }
    // From here on this is the agent.
    let error = Command::new(program).args(arguments).exec();
    let (code, what) = exec_failure(&error);
    fail(code, &format!("cannot execute {}: {what}", program.display()))
}

/// Moves this process into a cgroup.
pub fn join(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

/// Closes every descriptor but the standard ones and those that are kept: what it refers to was opened outside of the
/// agent, so no rule was asked.
fn close_others(kept: &[u32]) -> Result<()> {
    const STANDARD: u32 = 3;
    const LIST: &str = "/proc/self/fd";
    let entries = fs::read_dir(LIST).with_context(|| format!("list {LIST}"))?;
    // The list's own descriptor is closed before any other is.
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>().context(LIST)?;
    let open: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    if let Some(missing) = kept.iter().find(|number| !open.contains(number)) {
        bail!("--keep-fd {missing}: no such descriptor is open");
    }
    for number in open.into_iter().filter(|number| *number >= STANDARD && !kept.contains(number)) {
        match nix::unistd::close(number.cast_signed()) {
            Ok(()) | Err(nix::Error::EBADF) => {}
            Err(error) => bail!("close descriptor {number}: {error}"),
        }
    }
    Ok(())
}

fn exec_failure(error: &std::io::Error) -> (u8, String) {
    match error.kind() {
        ErrorKind::NotFound => (NOT_FOUND, "not found".to_owned()),
        ErrorKind::PermissionDenied => (NOT_EXECUTABLE, "permission denied".to_owned()),
        _ => (NOT_EXECUTABLE, error.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_status_that_shells_give() {
        assert_eq!(exec_failure(&ErrorKind::NotFound.into()).0, 127);
        assert_eq!(exec_failure(&ErrorKind::PermissionDenied.into()).0, 126);
        assert_eq!(exec_failure(&std::io::Error::from_raw_os_error(8)).0, 126);
    }
}
