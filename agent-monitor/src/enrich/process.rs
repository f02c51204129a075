//! Reads one entry of `/proc`. Everything in it that an agent can choose is escaped and bounded; nothing in it panics.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use procfs::process::Process;

use crate::record::escape::escape;

/// Most bytes of the arguments that a record holds; what is left out is shown by a last ` ...`.
const ARGUMENT_BYTES: usize = 4096;
/// Most bytes of `/proc/PID/stat` that are read: a name of 64 bytes and 51 numbers take less.
const STAT_BYTES: u64 = 4096;
/// Nanoseconds of one tick of `/proc/PID/stat`: USER_HZ is 100 on every architecture that we run on.
const TICK_NS: u64 = 10_000_000;

/// What is known of a process; what could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Path of the executable, escaped.
    pub binary: Option<String>,
    /// Arguments without the first, escaped, separated by spaces.
    pub arguments: Option<String>,
    /// Working directory, escaped.
    pub cwd: Option<String>,
}

/// Why a process could not be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such process any more.
    Gone,
    /// Another process has the id now.
    Reused,
    /// The entry is there, and its start can't be read.
    Unreadable,
}

/// Describes the process `pid` below `proc`, if it is the one that started at `start_boot_ns`.
pub fn describe(proc: &Path, pid: u32, start_boot_ns: u64) -> Result<Details, Failure> {
    // The entry is held open: all reads below are of one process, or fail when it is gone.
    let process = Process::new_with_root(proc.join(pid.to_string())).map_err(|_| Failure::Gone)?;
    let mut stat = Vec::new();
    let file = process.open_relative("stat").map_err(|_| Failure::Gone)?;
    file.take(STAT_BYTES).read_to_end(&mut stat).map_err(|_| Failure::Gone)?;
    let start = start_ticks(&stat).ok_or(Failure::Unreadable)?;
    if start != start_boot_ns / TICK_NS {
        return Err(Failure::Reused);
    }
    let link = |path: std::path::PathBuf| escape(path.as_os_str().as_bytes());
    Ok(Details {
        binary: process.exe().ok().map(link),
        arguments: arguments(&process),
        cwd: process.cwd().ok().map(link),
    })
}

/// Field 22 of `/proc/PID/stat`. Read here and not by `procfs`, whose parser trusts the line's form and would panic.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = stat.get(after_name..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    // The first field after the name is the third.
    let field = fields.nth(22 - 3)?;
    std::str::from_utf8(field).ok()?.trim_end().parse().ok()
}

fn arguments(process: &Process) -> Option<String> {
    let mut bytes = Vec::new();
    let limit = ARGUMENT_BYTES + 1;
    let file = process.open_relative("cmdline").ok()?;
    file.take(limit as u64).read_to_end(&mut bytes).ok()?;
    // A kernel thread, or a process that is exiting.
    (!bytes.is_empty()).then(|| join(&bytes))
}

/// Arguments of `cmdline` without the first. One with a space or a quote, or an empty one, is quoted.
fn join(cmdline: &[u8]) -> String {
    let cut = cmdline.len() > ARGUMENT_BYTES;
    let cmdline = cmdline.get(..ARGUMENT_BYTES).unwrap_or(cmdline);
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    let mut words: Vec<String> = cmdline.split(|byte| *byte == 0).skip(1).map(word).collect();
    if cut {
        words.push("...".to_owned());
    }
    words.join(" ")
}

fn word(argument: &[u8]) -> String {
    let text = escape(OsStr::from_bytes(argument).as_bytes());
    if text.is_empty() || text.contains([' ', '"']) { format!("\"{}\"", text.replace('"', "\\x22")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn own_process_is_described_and_a_reused_id_is_not() {
        let proc = Path::new("/proc");
        let pid = std::process::id();
        let stat = fs::read(proc.join(pid.to_string()).join("stat")).expect("own stat is readable");
        let start_boot_ns = start_ticks(&stat).expect("own stat has a start") * TICK_NS + 1;
        let details = describe(proc, pid, start_boot_ns).expect("own process is there");
        assert!(details.binary.expect("own executable is readable").contains("agent_monitor"));
        assert!(details.cwd.is_some());
        assert_eq!(describe(proc, pid, start_boot_ns + 10 * TICK_NS), Err(Failure::Reused));
        assert_eq!(describe(proc, u32::MAX, start_boot_ns), Err(Failure::Gone));
    }

    #[test]
    fn hostile_stat_lines_are_unreadable() {
        for stat in [
            &b""[..],
            b"(",
            b")",
            b"1 (a) S",
            b"\xff\xff)\xff",
            b"1 () x 1 2 3",
            b") a b c d e f g h i j k l m n o p q r s x",
        ] {
            assert_eq!(start_ticks(stat), None, "{stat:?}");
        }
        let name_with_numbers = b"7 (a) S 1 2 3) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1\n";
        assert_eq!(start_ticks(name_with_numbers), Some(12345));
    }

    #[test]
    fn arguments_are_escaped_joined_and_bounded() {
        assert_eq!(join(b"sh\0-c\0echo a\nb\0\0\xff\0"), "-c \"echo a\\x0ab\" \"\" \\xff");
        assert_eq!(join(b"sh\0"), "");
        let long = [b"sh\0".as_slice(), &[b'a'; ARGUMENT_BYTES]].concat();
        assert!(join(&long).ends_with("a ..."));
    }
}
