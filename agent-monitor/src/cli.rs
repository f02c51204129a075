//! The command line: what can be typed, and its help.

mod agents;
mod load;
mod policy;
mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use agents::Agents;
pub use load::Load;
pub use policy::PolicyCommand;
pub use run::{Enter, Guard, Lead, Run, Tend};

/// Exit status of `run` for its own failures.
pub const RUN_FAILED: u8 = 125;
/// Exit status where this kernel can't enforce what is asked for.
pub const UNSUPPORTED: u8 = 3;

/// Deny by default for AI agents, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "agent-monitor", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Example:\n  agent-monitor run --policy policy.yaml -- python3 agent.py")]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/agent-monitor/config.toml, or all defaults where it is not there]
    #[arg(long, global = true, value_name = "FILE", env = "AGENT_MONITOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// What is logged on standard error
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What broke.
    Error,
    /// And what may be wrong.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
    /// And every detail.
    Trace,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command as an agent: in a cgroup of its own, bound to a policy before its first instruction
    ///
    /// At the end a report on standard error says what was denied, and which rule would allow it. The exit status is the
    /// command's; 125: agent-monitor itself failed, 126: the command can't be executed, 127: it was not found, 128+N: it
    /// was ended by signal N, 3: this kernel can't enforce the policy. A daemon of this node is used where one runs.
    /// The command has a session of its own, and a terminal of its own where a standard descriptor is one; what is typed and
    /// shown is passed on.
    #[command(after_help = "Example:\n  agent-monitor run --policy policy.yaml --var WORKSPACE=$PWD -- git status")]
    Run(Run),
    /// Guard this node: bind agents, write the audit log, serve metrics, health and control
    #[command(
        after_help = "Example:\n  agent-monitor daemon --config /etc/agent-monitor/config.toml\n  agent-monitor daemon --uninstall"
    )]
    Daemon(Daemon),
    /// Show what is enforced on this node now
    #[command(after_help = "Example:\n  agent-monitor status -o json")]
    Status(Output),
    /// Show what this kernel and this node can enforce; exit status 0: full, 1: partial, 2: none
    #[command(after_help = "Example:\n  agent-monitor doctor")]
    Doctor(Output),
    /// Show, bind and unbind agents
    #[command(subcommand, after_help = "Example:\n  agent-monitor agents list")]
    Agents(Agents),
    /// Check, explain, test, apply and show policies
    #[command(subcommand, after_help = "Example:\n  agent-monitor policy check policy.yaml")]
    Policy(PolicyCommand),
    /// Print the audit stream: what is recorded, or with --follow what comes
    #[command(after_help = "Example:\n  agent-monitor events --follow --denied -o line")]
    Events(Events),
    /// Check that an audit log is as it was written, over its rotations; exit status 1 where it is not
    ///
    /// Finds lines that were changed, removed, repeated or moved, files that were exchanged, and an end that was cut off.
    /// The files may be named in any order. Without any it is the log of the configuration with what it was rotated to.
    #[command(
        after_help = "Examples:\n  agent-monitor verify\n  agent-monitor verify /var/log/agent-monitor/audit.jsonl*\n  agent-monitor verify --head head.json --after sha256:... audit.jsonl.1 audit.jsonl"
    )]
    Verify(Verify),
    /// End the agent of a run that is killed
    #[command(hide = true)]
    Guard(Guard),
    /// Lead the session in which a command has its terminal
    #[command(hide = true)]
    Lead(Lead),
    /// Start a command at a terminal and be its parent
    #[command(hide = true)]
    Tend(Tend),
    /// Go into a cgroup and execute a command there
    #[command(hide = true)]
    Enter(Enter),
    /// Load and pin the kernel programs for a daemon
    #[command(hide = true)]
    Load(Load),
    /// Try what the self-test asks for
    #[command(hide = true)]
    Canary(Canary),
}

/// Options of `daemon`.
#[derive(Debug, Args)]
pub struct Daemon {
    /// Go on where the kernel lets only the network be enforced
    #[arg(long)]
    pub allow_partial: bool,
    /// Detach and remove what guards this node without a daemon, and say which agents are not guarded any more
    #[arg(long, conflicts_with = "allow_partial")]
    pub uninstall: bool,
}

/// How to print.
#[derive(Debug, Args)]
pub struct Output {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What makes up an agent beside its policy and its cgroup.
#[derive(Debug, Args)]
pub struct AgentOptions {
    /// Name of the agent in records
    #[arg(long)]
    pub name: Option<String>,
    /// Label of the agent in records
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Values for the policy's variables
    #[command(flatten)]
    pub variables: Variables,
    /// enforce or audit; the policy's own mode where it is not given
    #[arg(long)]
    pub mode: Option<String>,
}

impl AgentOptions {
    /// The labels by their keys.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

/// Values for the variables of a policy.
#[derive(Debug, Args)]
pub struct Variables {
    /// Value for a variable of the policy
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
}

impl Variables {
    /// The values by the names of their variables.
    pub fn values(&self) -> BTreeMap<String, String> {
        self.variables.iter().cloned().collect()
    }
}

/// Options of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Print what comes from now on, until interrupted
    #[arg(long)]
    pub follow: bool,
    /// Denied operations only
    #[arg(long)]
    pub denied: bool,
    /// Records of this agent only
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = EventFormat::Json)]
    pub output: EventFormat,
}

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Files of the log
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where it is noted which record was written last, or none [default: head.json of state_dir, where the log of the
    /// configuration is among the files]
    #[arg(long, value_name = "FILE|none")]
    pub head: Option<PathBuf>,
    /// Hash of the line before the first one, where older files were verified before; any: not checked
    #[arg(long, value_name = "HASH|any")]
    pub after: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Forms of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// The record.
    Json,
    /// A short line.
    Line,
}

/// Options of `canary`.
#[derive(Debug, Args)]
pub struct Canary {
    /// Directory of the cgroup
    #[arg(long)]
    pub cgroup: PathBuf,
    /// Do nothing but end: this is what is executed as a try
    #[arg(long)]
    pub leave: bool,
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Reads the command line; what is wrong with it, or help, is printed.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // Nothing is left to be done where standard error is closed.
        let _ = error.print();
        let run = std::env::args_os().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
        match (error.use_stderr(), run.is_some_and(|word| word == "run")) {
            (false, _) => ExitCode::SUCCESS,
            (true, true) => ExitCode::from(RUN_FAILED),
            (true, false) => ExitCode::from(2),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            if !command.is_hide_set() && command.get_name() != "help" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Example"), "{}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_command_of_run_keeps_its_own_options() {
        let cli = Cli::try_parse_from(["agent-monitor", "run", "--policy", "p", "--", "ls", "--color", "-l"]);
        let Ok(Cli { command: Command::Run(run), .. }) = cli else { panic!("{cli:?}") };
        assert_eq!(run.command, ["ls", "--color", "-l"]);
        assert!(Cli::try_parse_from(["agent-monitor", "run", "--policy", "p", "--var", "X", "--", "ls"]).is_err());
    }
}
