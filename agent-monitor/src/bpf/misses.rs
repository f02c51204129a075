//! How often the kernel skipped a program, because another task was preempted inside the same program on the same
//! processor: what the program should have judged passed. aya does not show the number; the kernel shows it in `/proc`, with
//! what else it says about the program's descriptor.

use super::hook::HookState;
use agent_monitor_common::hook::Hook;
use std::os::fd::RawFd;
use std::path::Path;

/// How often the program of a hook was skipped since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramMisses {
    /// Name of the hook.
    pub hook: &'static str,
    /// How often, or why that is not known.
    pub count: Result<u64, String>,
}

/// Of each hook whose program is loaded, whatever its kind: the kernel counts all kinds alike. `descriptor` gives that of
/// its program.
pub fn read(
    hooks: &[HookState],
    descriptor: impl Fn(&Hook) -> Result<RawFd, String>,
    proc: &Path,
) -> Vec<ProgramMisses> {
    let hooks = hooks.iter().filter(|state| state.loaded()).map(|state| state.hook);
    hooks.map(|hook| ProgramMisses { hook: hook.name, count: descriptor(hook).and_then(|fd| of(fd, proc)) }).collect()
}

fn of(descriptor: RawFd, proc: &Path) -> Result<u64, String> {
    let path = proc.join(format!("self/fdinfo/{descriptor}"));
    let text = std::fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    parse(&text).ok_or_else(|| format!("{} has no number of misses", path.display()))
}

/// The number in `bpf_prog_show_fdinfo()` (kernel/bpf/syscall.c): lines of a name, a colon, a tabulator and a value.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_among_the_others() {
        let text =
            "pos:\t0\nflags:\t02000002\nprog_type:\t29\nrun_cnt:\t5\nrecursion_misses:\t17\nverified_insns:\t9\n";
        assert_eq!(parse(text), Some(17));
        assert_eq!(parse("recursion_misses:\t18446744073709551615"), Some(u64::MAX));
    }

    #[test]
    fn a_number_that_is_not_there_is_not_0() {
        for text in
            ["", "run_cnt:\t5\n", "recursion_misses:\n", "recursion_misses:\tmany\n", "x recursion_misses:\t1\n"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
