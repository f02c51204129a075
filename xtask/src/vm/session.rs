//! One boot from start to end: joins the image, the machine and the console's watcher, and says how it ended.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::console::Console;
use super::image::{self, Payload};
use super::machine::{Happening, Hardware, Machine, Output, STREAMS};
use crate::kernel::Kernel;

/// How long the console may go on after the first line of trouble, and the machine after the command's end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended with this status.
    Exited(u8),
    /// The command had not ended when the time was over.
    TimedOut,
    /// The kernel or QEMU failed; the text says what.
    Failed(String),
    /// The user stopped us.
    Interrupted,
}

/// What there is to say about one boot.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// From QEMU's start to the command's.
    pub boot: Option<Duration>,
    /// From QEMU's start to its end.
    pub total: Duration,
    /// What the kernel said.
    pub console: Console,
    /// What the command printed, where it was to be kept.
    pub output: Vec<u8>,
    /// What QEMU complained about.
    pub complaints: String,
}

impl Report {
    /// What an interpreted machine stumbled over that is none of ours: anything before it ran the command, or a breakpoint that
    /// was not there.
    pub fn trouble_of_interpreter(&self) -> Option<&str> {
        let failed = matches!(self.outcome, Outcome::Failed(_));
        self.console.trouble().filter(|_| self.boot.is_none() || failed && self.console.is_stale_breakpoint())
    }
}

/// Boots a kernel, runs the payload's command and waits for its end.
pub fn run(kernel: &Kernel, hardware: &Hardware, payload: &Payload, limit: Duration, output: Output) -> Result<Report> {
    let dir = machine_dir()?;
    let initramfs = dir.path().join("initramfs");
    image::write(kernel, payload, &initramfs).context("make the machine's initramfs")?;
    let (sender, receiver) = channel();
    on_interrupt(&sender)?;
    let start = Instant::now();
    let mut machine = Machine::start(hardware, &kernel.image, &initramfs, dir.path(), output, &sender)?;
    let mut watch = Watch {
        console: Console::default(),
        status: None,
        interrupted: false,
        boot: None,
        streams: STREAMS,
        output: Vec::new(),
    };
    let quiet = output == Output::Hidden;
    let timed_out = watch.until_end(&receiver, start, limit, &mut machine, quiet, hardware);
    let complaints = machine.complaints();
    drop(machine);
    Ok(Report {
        outcome: watch.outcome(timed_out, &complaints),
        boot: watch.boot,
        total: start.elapsed(),
        console: watch.console,
        output: watch.output,
        complaints,
    })
}

/// A directory for one machine. Those of runs that were killed, and could not remove theirs, are removed first.
fn machine_dir() -> Result<TempDir> {
    const PREFIX: &str = "agent-monitor-vm-";
    for entry in std::env::temp_dir().read_dir().context("read the directory for temporary files")?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().context("create a directory for the machine")
}

struct Watch {
    console: Console,
    status: Option<u8>,
    interrupted: bool,
    boot: Option<Duration>,
    streams: usize,
    output: Vec<u8>,
}

impl Watch {
    /// Takes what happens until the machine's last stream has ended; true if the time was over before.
    fn until_end(
        &mut self,
        happenings: &Receiver<Happening>,
        start: Instant,
        limit: Duration,
        machine: &mut Machine,
        quiet: bool,
        hardware: &Hardware,
    ) -> bool {
        let mut deadline = start + limit;
        let mut timed_out = false;
        while self.streams > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match happenings.recv_timeout(left) {
                Ok(Happening::Console(line)) => {
                    if self.console.line(&line) {
                        deadline = deadline.min(Instant::now() + LAST_WORDS);
                    }
                }
                Ok(Happening::Status(line)) => match line.split_once(' ') {
                    Some(("up", seconds)) => {
                        self.boot = Some(start.elapsed());
                        if !quiet {
                            let boot = start.elapsed().as_secs_f32();
                            eprintln!(
                                "xtask: up in {boot:.1} s ({}, its own clock says {seconds})",
                                hardware.accel.name()
                            );
                        }
                    }
                    Some(("exit", status)) => {
                        self.status = status.parse().ok();
                        deadline = deadline.min(Instant::now() + LAST_WORDS);
                    }
                    _ => {}
                },
                Ok(Happening::Output(bytes)) => self.output.extend(bytes),
                Ok(Happening::Ended) => self.streams -= 1,
                Ok(Happening::Interrupted) => {
                    self.interrupted = true;
                    machine.kill();
                }
                Err(RecvTimeoutError::Timeout) => {
                    // After the command's end or the kernel's, this only ends a machine that does not power off.
                    timed_out = self.status.is_none() && self.console.trouble().is_none();
                    machine.kill();
                    // Its streams end now; the deadline has served.
                    deadline = Instant::now() + limit;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        timed_out
    }

    fn outcome(&self, timed_out: bool, complaints: &str) -> Outcome {
        if self.interrupted {
            return Outcome::Interrupted;
        }
        if let Some(trouble) = self.console.trouble() {
            return Outcome::Failed(trouble.to_owned());
        }
        match self.status {
            Some(status) => Outcome::Exited(status),
            None if timed_out => Outcome::TimedOut,
            None => {
                let own = self.console.excerpt().iter().rev().find(|line| line.starts_with("machine: "));
                let qemu = complaints.trim().lines().last().map(|line| format!("QEMU: {line}"));
                let why =
                    own.cloned().or(qemu).unwrap_or_else(|| "the machine ended before the command did".to_owned());
                Outcome::Failed(why)
            }
        }
    }
}

/// The channels of all machines, for the one signal handler that a process can have.
static INTERRUPTS: OnceLock<Mutex<Vec<Sender<Happening>>>> = OnceLock::new();

fn on_interrupt(sender: &Sender<Happening>) -> Result<()> {
    let mut is_first = false;
    let machines = INTERRUPTS.get_or_init(|| {
        is_first = true;
        Mutex::default()
    });
    machines.lock().map_err(|_| anyhow::anyhow!("the signal handler panicked"))?.push(sender.clone());
    if is_first {
        return ctrlc::set_handler(move || {
            // Those that have ended take no more.
            machines.lock().iter().flat_map(|all| all.iter()).for_each(|one| drop(one.send(Happening::Interrupted)));
        })
        .context("handle Ctrl-C");
    }
    Ok(())
}
