//! Jobs as shells have them: signals for the command's process group, and being stopped together with ours.

use std::fs;
use std::path::Path;

use rustix::process::{
    Pid, Signal, getpgid, getpgrp, getpid, getppid, getsid, kill_current_process_group, kill_process,
    kill_process_group,
};

/// Writing 1 to it stops all that is in a cgroup.
const FREEZE: &str = "cgroup.freeze";

/// Sends the command a signal: to its whole process group what a terminal sends to all of it, to itself the rest. The id must
/// be of a child that was not waited for.
pub fn signal(command: Pid, signal: Signal) {
    let to_all = [Signal::INT, Signal::QUIT, Signal::HUP, Signal::TSTP, Signal::CONT].contains(&signal);
    // It may have ended in this moment, have another group, or none yet.
    if !to_all || kill_process_group(command, signal).is_err() {
        let _ = kill_process(command, signal);
    }
}

/// Stops our process group, as the terminal would: the shell waits for all of it, also where a script started us. The whole
/// agent stands still meanwhile, or its other processes would act while nobody records.
pub fn stop(cgroup: &Path) {
    match fs::write(cgroup.join(FREEZE), "1") {
        // It can't fail: we are in it.
        Ok(()) => drop(kill_current_process_group(Signal::STOP)),
        Err(error) => tracing::warn!("not stopped: cannot freeze the agent in {}: {error}", cgroup.display()),
    }
}

/// Lets the agent go on. We do already.
pub fn go_on(cgroup: &Path) {
    if let Err(error) = fs::write(cgroup.join(FREEZE), "0") {
        tracing::warn!("cannot let the agent in {} go on: {error}", cgroup.display());
    }
}

/// Whether there is a shell that would see that our process group stops, and let it go on. The kernel asks the same before it
/// lets a terminal stop a group.
pub fn has_a_shell() -> bool {
    let group = getpgrp();
    let Some(parent) = parent_of(group) else { return false };
    getsid(Some(parent)).ok() == getsid(None).ok() && getpgid(Some(parent)).is_ok_and(|its| its != group)
}

fn parent_of(pid: Pid) -> Option<Pid> {
    if pid == getpid() {
        return getppid();
    }
    Pid::from_raw(state_and_parent(pid)?.1)
}

/// Whether a process was stopped by a signal.
pub fn is_stopped(pid: Pid) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state == "T")
}

fn state_and_parent(pid: Pid) -> Option<(String, i32)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before the bracket may hold anything; state and parent come after it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_for_oneself_and_for_others() {
        let parent = getppid().expect("tests are started by somebody");
        assert_eq!(parent_of(getpid()), Some(parent));
        assert!(parent_of(parent).is_none_or(|its| its != parent));
        assert!(!is_stopped(getpid()));
    }
}
