//! A process that does what it is told, step by step, in whatever cgroup it is put: this program again, as a trigger.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::cgroup;
use super::wait::{limit, ready};
use crate::trigger;

/// One step of a trigger: its name and arguments, which may be any bytes.
pub type Step = Vec<Vec<u8>>;

/// Makes a step of anything that has bytes.
#[macro_export]
macro_rules! step {
    ($($word:expr),+ $(,)?) => { vec![$($crate::harness::process::step(&$word)),+] };
}

/// The bytes of a word.
pub fn step<T: AsRef<std::ffi::OsStr> + ?Sized>(word: &T) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    word.as_ref().as_bytes().to_vec()
}

/// A trigger that runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one in the cgroup of the scenarios' own process.
    pub fn start() -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("trigger").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("start a trigger")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the trigger has no pipes")
        };
        let mut process = Self { child, input, output: BufReader::new(output) };
        process.run(&crate::step!("nothing"))?;
        Ok(process)
    }

    /// Starts one in this cgroup.
    pub fn start_in(directory: &Path) -> Result<Self> {
        let process = Self::start()?;
        cgroup::enter(directory, process.pid())?;
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets everybody else go first, where there is not enough time for all.
    pub fn stand_back(&self) -> Result<()> {
        stand_back(self.pid())
    }

    /// Does a step: its errno and value. The errno of what worked is 0.
    pub fn run(&mut self, step: &Step) -> Result<(i32, i64)> {
        self.send(step)?;
        self.answer(step)
    }

    /// Tells it to do a step, and does not wait.
    pub fn send(&mut self, step: &Step) -> Result<()> {
        let mut line = trigger::words::encode(step);
        line.push('\n');
        self.input.write_all(line.as_bytes()).with_context(|| format!("the trigger is gone before {}", shown(step)))
    }

    /// What became of a step that was sent.
    pub fn answer(&mut self, step: &Step) -> Result<(i32, i64)> {
        let deadline = Instant::now() + limit();
        if self.output.buffer().is_empty() {
            let is_there = ready(self.output.get_ref().as_fd(), libc::POLLIN, deadline);
            ensure!(is_there, "{} does not end", shown(step));
        }
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let mut words = line.split_whitespace().skip(1);
        let (errno, value) = (words.next().and_then(|w| w.parse().ok()), words.next().and_then(|w| w.parse().ok()));
        match (errno, value) {
            (Some(errno), Some(value)) => Ok((errno, value)),
            _ => bail!("the trigger ended in {}: {line:?}", shown(step)),
        }
    }

    /// Does a step that must end with this errno.
    pub fn expect(&mut self, step: &Step, errno: i32, when: &str) -> Result<i64> {
        let (found, value) = self.run(step)?;
        ensure!(found == errno, "{when}: {} gave errno {found}, not {errno}", shown(step));
        Ok(value)
    }

    /// Does a step that must work.
    pub fn works(&mut self, step: &Step, when: &str) -> Result<i64> {
        self.expect(step, 0, when)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets everybody else go before this process, or with 0 before this thread and what it starts.
pub fn stand_back(pid: u32) -> Result<()> {
    const LAST: i32 = 19;
    // SAFETY: takes three numbers.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, LAST) };
    ensure!(done == 0, "change the priority of {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A step as a person writes it.
pub fn shown(step: &Step) -> String {
    let mut text = trigger::words::encode(step).replace('\t', " ");
    text.truncate(200);
    format!("`{text}`")
}
