//! `cargo xtask vm`: boots kernels and runs a command in each, as root, with agent-monitor at hand.

mod accel;
mod console;
mod cpio;
mod image;
mod machine;
mod session;
mod virtiofs;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::kernel::{self, Kernel, Spec};
use crate::process;
use crate::workspace::Workspace;
use accel::Accel;
use image::Payload;
use machine::Hardware;
use session::{Outcome, Report};

pub use machine::Output;
pub use virtiofs::program as virtiofsd;

/// Exit status where the command had not ended in time, as `timeout` has it.
pub const TIMED_OUT: u8 = 124;
/// Exit status where the machine failed, or we did.
pub const FAILED: u8 = 125;
/// Exit status after Ctrl-C, as a shell has it.
pub const INTERRUPTED: u8 = 130;

const DEFAULT_LSM: &str = "landlock,lockdown,yama,bpf";

/// How often a machine is run that fails before it runs the command, or by a fault of the interpreter's. QEMU's, with a thread
/// for each processor, is not exact where one patches code that another runs: about one of fifty boots ends with `Oops: int3`,
/// and so may any attaching of a program later.
const TRIES: usize = 3;

/// What the machine's root directory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Root {
    /// busybox and a few files in /etc.
    Minimal,
    /// This machine's own root directory, read-only, under a writable layer in memory.
    Host,
}

/// Options of `cargo xtask vm`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask vm --kernel 6.1 --kernel newest -- 'uname -r; agent-monitor doctor'

COMMAND is run by `sh -c`; several words are quoted, so that they arrive as they are. The exit status is the command's
own, 124 if it had not ended in time, 125 if the machine failed (a panic, a stall, a warning on the kernel's console).")]
pub struct Options {
    /// A series of Debian kernels such as 6.1, `newest`, or a kernel image; may be given again
    #[arg(long = "kernel", value_name = "6.1|6.12|6.18|newest|PATH", default_value = "newest")]
    pub kernels: Vec<Spec>,
    /// What the root directory is made of
    #[arg(long, value_enum, default_value = "minimal")]
    pub root: Root,
    /// A file or directory to put into /root; may be given again
    #[arg(long, value_name = "FILE")]
    pub with: Vec<PathBuf>,
    /// Processors of the machine
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub cpus: u32,
    /// Memory of the machine [default: 1024, with --root host 2048]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// One processor whose clock advances a nanosecond with each instruction, to count instructions
    #[arg(long)]
    pub icount: bool,
    /// Machines at once; with more than one, what each printed is shown when it has ended
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// Seconds until the machine is given up, from its start
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// Active security modules
    #[arg(long, value_name = "LIST", default_value = DEFAULT_LSM)]
    pub lsm: String,
    /// More words for the kernel's command line
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Do not build agent-monitor and boot without it
    #[arg(long)]
    pub no_build: bool,
    /// Build agent-monitor with the feature kernel-log, so that the kernel programs write to its log
    #[arg(long, conflicts_with = "no_build")]
    pub kernel_log: bool,
    /// Where the command's standard output goes
    #[arg(skip)]
    pub output: Output,
    /// What stands before the kernel's release over what a machine printed
    #[arg(skip)]
    pub title: Option<String>,
    /// What to run
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub command: Vec<String>,
}

impl Options {
    /// Options as if typed without any but these.
    pub fn of(kernels: &[Spec], with: Vec<PathBuf>, command: &str) -> Self {
        Self {
            kernels: kernels.to_vec(),
            root: Root::Minimal,
            with,
            cpus: 2,
            memory: None,
            icount: false,
            jobs: 1,
            timeout: 300,
            lsm: DEFAULT_LSM.to_owned(),
            append: String::new(),
            no_build: false,
            kernel_log: false,
            output: Output::Shown,
            title: None,
            command: vec![command.to_owned()],
        }
    }
}

/// How the command ended on a kernel.
#[derive(Debug)]
pub struct Run {
    /// The kernel's release.
    pub release: String,
    /// The command's status, or one of [`TIMED_OUT`], [`FAILED`].
    pub status: u8,
    /// What it printed, with [`Output::Kept`].
    pub output: String,
}

/// Runs the command on each kernel. The first status that is not 0 is the answer, after all have run.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let runs = run_on_all(workspace, options)?;
    Ok(runs.iter().map(|run| run.status).find(|status| *status != 0).unwrap_or(0).into())
}

/// Runs the command on each kernel, and says how it ended on which.
pub fn run_on_all(workspace: &Workspace, options: &Options) -> Result<Vec<Run>> {
    let mut programs = Vec::new();
    if !options.no_build {
        programs.push(build::agent_monitor(workspace, options.kernel_log)?.for_machine()?);
    }
    let policies = Some(workspace.root.join("policies")).filter(|dir| dir.is_dir());
    for path in &options.with {
        path.metadata().with_context(|| format!("read {} for --with", path.display()))?;
    }
    let payload = Payload {
        root: options.root,
        programs,
        policies,
        with: options.with.clone(),
        command: command_text(&options.command),
    };
    let kernels: Vec<Kernel> =
        options.kernels.iter().map(|spec| kernel::get(workspace, spec)).collect::<Result<_>>()?;
    if options.jobs > 1 && (kernels.len() > 1 || options.output == Output::Whole) {
        return run_side_by_side(workspace, options, &payload, kernels);
    }
    let mut runs = Vec::new();
    for kernel in kernels {
        let run = boot(workspace, options, &payload, kernel, options.output)?;
        let is_interrupted = run.status == INTERRUPTED;
        runs.push(run);
        if is_interrupted {
            break;
        }
    }
    Ok(runs)
}

/// Several machines at once. A scenario waits more than it works, so that two machines share two processors well.
fn run_side_by_side(
    workspace: &Workspace,
    options: &Options,
    payload: &Payload,
    kernels: Vec<Kernel>,
) -> Result<Vec<Run>> {
    // Asked once, and not by two machines at the same time.
    if let Some(kernel) = kernels.first().filter(|_| !options.icount) {
        accel::best(workspace, kernel)?;
    }
    let is_shown = matches!(options.output, Output::Shown | Output::Whole);
    let output = if is_shown { Output::Kept } else { options.output };
    let work = Mutex::new(kernels.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some((index, kernel)) = next() {
                    let run = boot(workspace, options, payload, kernel, output);
                    let is_interrupted = run.as_ref().is_ok_and(|run| run.status == INTERRUPTED);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    if let (Ok(run), true) = (&run, is_shown) {
                        let title = options.title.as_ref().map_or_else(String::new, |title| format!("{title}: "));
                        println!("== {title}linux {}\n{}", run.release, run.output.trim_end());
                    }
                    done.push((index, run));
                    if is_interrupted {
                        break;
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, run)| run).collect()
}

fn boot(workspace: &Workspace, options: &Options, payload: &Payload, kernel: Kernel, output: Output) -> Result<Run> {
    let accel = if options.icount { Accel::Icount } else { accel::best(workspace, &kernel)? };
    if options.cpus == 0 {
        bail!("a machine with no processor does not start; give --cpus 1 or more");
    }
    let hardware = Hardware {
        accel,
        cpus: if options.icount { 1 } else { options.cpus },
        memory_mib: options.memory.unwrap_or(match options.root {
            Root::Minimal => 1024,
            Root::Host => 2048,
        }),
        root: options.root,
        lsm: options.lsm.clone(),
        append: options.append.clone(),
    };
    eprintln!("xtask: linux {}", kernel.release);
    let limit = Duration::from_secs(options.timeout);
    let mut report = session::run(&kernel, &hardware, payload, limit, output)?;
    for _ in 1..TRIES {
        let Some(trouble) = report.trouble_of_interpreter().filter(|_| accel == Accel::Tcg) else {
            break;
        };
        let why = if report.boot.is_none() {
            "nothing of ours ran yet"
        } else {
            "the kernel's code has no breakpoint there, so QEMU ran code that had been replaced"
        };
        eprintln!("xtask: linux {}: {trouble}; {why}: all of it is run again", kernel.release);
        report = session::run(&kernel, &hardware, payload, limit, output)?;
    }
    let status = tell(workspace, options, &kernel, &report)?;
    Ok(Run { release: kernel.release, status, output: String::from_utf8_lossy(&report.output).into_owned() })
}

/// Tells a person how it ended and returns the exit status.
fn tell(workspace: &Workspace, options: &Options, kernel: &Kernel, report: &Report) -> Result<u8> {
    let took = report.total.as_secs_f32();
    let (what, status) = match &report.outcome {
        Outcome::Exited(status) => {
            eprintln!("xtask: linux {}: exit status {status}, {took:.1} s in all", kernel.release);
            return Ok(*status);
        }
        Outcome::Interrupted => {
            eprintln!("xtask: linux {}: interrupted", kernel.release);
            return Ok(INTERRUPTED);
        }
        Outcome::TimedOut if report.boot.is_none() => {
            (format!("did not start within {} s", options.timeout), TIMED_OUT)
        }
        Outcome::TimedOut => (format!("the command had not ended after {} s", options.timeout), TIMED_OUT),
        Outcome::Failed(what) => (what.clone(), FAILED),
    };
    let logs = workspace.target.join("vm-logs");
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    let log = logs.join(format!("{}-{}.log", kernel.release, std::process::id()));
    fs::write(&log, report.console.text()).with_context(|| format!("write {}", log.display()))?;
    eprintln!("xtask: linux {}: the machine failed: {what}", kernel.release);
    for line in report.complaints.trim().lines() {
        eprintln!("qemu| {line}");
    }
    for line in report.console.excerpt() {
        eprintln!("console| {line}");
    }
    eprintln!("xtask: the whole console is in {}", log.display());
    Ok(status)
}

/// One word is a shell's text as it is; several are words, which `sh -c` must not take apart again.
fn command_text(words: &[String]) -> String {
    match words {
        [text] => text.clone(),
        words => words.iter().map(|word| process::shell_quote(word)).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::command_text;

    #[test]
    fn several_words_reach_the_command_as_they_are() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(command_text(&words(&["uname -r; id"])), "uname -r; id");
        assert_eq!(command_text(&words(&["sh", "-c", "uname -r; id"])), "sh -c 'uname -r; id'");
    }
}
