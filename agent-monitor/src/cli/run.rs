//! The command line of `run`, and of the processes that it starts by its own executable: nobody types theirs.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedI64ValueParser;

use super::AgentOptions;
use crate::seccomp::Numbers;

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Name of a policy that the daemon or the policy directory has, or a file: with a slash (./FILE) or the ending .yaml
    #[arg(long, value_name = "NAME|FILE")]
    pub policy: String,
    /// What else makes up the agent
    #[command(flatten)]
    pub agent: AgentOptions,
    /// Write the agent's records to this file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Leave this descriptor open for the command; standard input, output and error always are, all others are closed
    #[arg(long = "keep-fd", value_name = "NUMBER")]
    pub keep_descriptors: Vec<u32>,
    /// Go on where the kernel lets only the network be enforced
    #[arg(long)]
    pub allow_partial: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Options of `guard`.
#[derive(Debug, Args)]
pub struct Guard {
    /// Where the cgroup hierarchy is mounted
    #[arg(long, value_name = "DIR")]
    pub mount: PathBuf,
    /// Path of the agent's cgroup in the hierarchy
    #[arg(long, value_name = "PATH")]
    pub agent: PathBuf,
    /// Path of the cgroup in which this process waits
    #[arg(long, value_name = "PATH")]
    pub own: String,
}

/// Options of `lead`.
#[derive(Debug, Args)]
pub struct Lead {
    /// Process id of the parent, with which this process ends
    #[arg(long)]
    pub parent: u32,
    /// Standard descriptor that is the session's terminal
    #[arg(long, value_name = "NUMBER", value_parser = standard())]
    pub terminal: u8,
    /// How much the kernel is to prefer this process where it must end one for lack of memory
    #[arg(long, allow_negative_numbers = true)]
    pub oom_score_adj: Option<i16>,
    /// The options of `tend`
    #[arg(required = true, last = true)]
    pub tend: Vec<OsString>,
}

/// Options of `tend`.
#[derive(Debug, Args)]
pub struct Tend {
    /// Process id of the parent, which leads the session
    #[arg(long)]
    pub parent: u32,
    /// Standard descriptor that is the session's terminal
    #[arg(long, value_name = "NUMBER", value_parser = standard())]
    pub terminal: u8,
    /// Start the command in the terminal's foreground
    #[arg(long)]
    pub foreground: bool,
    /// Descriptor of the pipe from which orders come
    #[arg(long, value_name = "NUMBER")]
    pub orders: u32,
    /// Descriptor of the pipe that takes what is told of the command
    #[arg(long, value_name = "NUMBER")]
    pub news: u32,
    /// Directory of the cgroup
    #[arg(long)]
    pub cgroup: PathBuf,
    /// The options of `enter`
    #[arg(required = true, last = true)]
    pub enter: Vec<OsString>,
}

/// Options of `enter`.
#[derive(Debug, Args)]
pub struct Enter {
    /// Directory of the cgroup
    #[arg(long)]
    pub cgroup: PathBuf,
    /// Process id of the parent, with which the command ends
    #[arg(long)]
    pub parent: u32,
    /// Make a session for the command
    #[arg(long)]
    pub session: bool,
    /// Come into the foreground of the terminal that is this standard descriptor
    #[arg(long, value_name = "NUMBER", value_parser = standard())]
    pub foreground: Option<u8>,
    /// Unblock this signal, which who started this process has blocked
    #[arg(long, value_name = "NUMBER")]
    pub unblock: Vec<i32>,
    /// Leave this descriptor open
    #[arg(long = "keep-fd", value_name = "NUMBER")]
    pub keep_descriptors: Vec<u32>,
    /// Numbers of the system calls that the command may make, like 0-334,424
    #[arg(long)]
    pub syscalls: Numbers,
    /// It may also make those of other interfaces
    #[arg(long)]
    pub foreign: bool,
    /// What it may not make is logged by the kernel, and passes
    #[arg(long)]
    pub audit: bool,
    /// How much the kernel is to prefer the command where it must end a process for lack of memory
    #[arg(long, allow_negative_numbers = true)]
    pub oom_score_adj: Option<i16>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// The number of a standard descriptor.
fn standard() -> RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..3)
}
