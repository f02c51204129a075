//! Memory goes back to the kernel. The daemon reads megabytes of the kernel's types when it loads the programs, and then
//! waits for weeks.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Limits of glibc's allocator, mallopt(3): from how many bytes on a block is a mapping of its own, how much may stay free at
/// the heap's end, how many heaps there are. Without them glibc raises the first two to the largest block that it has ever
/// freed, and keeps all below. The more heaps, the more of them has holes. glibc reads these before a program's first
/// instruction.
const LIMITS: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_ARENA_MAX", "2")];

/// That they were set: a variable that the loader never takes away, as it does with the others where it does not trust them.
const SET: (&str, &str) = ("AGENT_MONITOR_MEMORY", "limited");

/// Executes this program once more, as the same process, with the allocator's limits in its environment. Does nothing where
/// one of them is there: they were set by this, or by someone who wants others.
pub fn limit() {
    if LIMITS.iter().chain([&SET]).any(|(name, _)| env::var_os(name).is_some()) {
        return;
    }
    let error = execute_again();
    tracing::warn!(
        "cannot execute this program again with limits for its memory: {error}; the daemon keeps more than it needs; set {} \
         in its environment",
        LIMITS.map(|(name, value)| format!("{name}={value}")).join(" ")
    );
}

/// Returns only where that failed.
fn execute_again() -> io::Error {
    let mut words = env::args_os();
    let name = words.next().unwrap_or_else(|| env!("CARGO_PKG_NAME").into());
    match env::current_exe() {
        Ok(program) => Command::new(program).arg0(name).args(words).envs(LIMITS).env(SET.0, SET.1).exec(),
        Err(error) => error,
    }
}
