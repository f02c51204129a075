//! The command line of `policy`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Output, Variables};

/// The commands of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Report all errors of policies at once; exit status 1 if there is any
    #[command(after_help = "Example:\n  agent-monitor policy check policies/*.yaml")]
    Check {
        /// Files of policies (with a slash or the ending .yaml), or names in the policy directory
        #[arg(required = true, value_name = "FILE|NAME")]
        policies: Vec<String>,
    },
    /// Say what a policy makes of an operation, and by which rule
    #[command(after_help = "Examples:
  agent-monitor policy explain p.yaml file:read,write /etc/passwd
  agent-monitor policy explain p.yaml network:connect tcp:10.1.2.3:443
  agent-monitor policy explain p.yaml file:rename /w/a /w/b")]
    Explain {
        /// Policy: a file (with a slash or the ending .yaml), or a name in the policy directory
        #[arg(value_name = "FILE|NAME")]
        policy: String,
        /// The operation: file:read,write network:connect exec privilege capability ...
        operation: String,
        /// What it is on
        object: String,
        /// The new name of a rename or link
        new_object: Option<String>,
        /// Values for the policy's variables
        #[command(flatten)]
        variables: Variables,
    },
    /// Try a table of operations; exit status 1 if a verdict differs
    #[command(after_help = "Example:\n  agent-monitor policy test policy.yaml policy.cases.yaml")]
    Test {
        /// Policy: a file (with a slash or the ending .yaml), or a name in the policy directory
        #[arg(value_name = "FILE|NAME")]
        policy: String,
        /// Files of cases
        #[arg(required = true)]
        cases: Vec<PathBuf>,
    },
    /// Write a part of a policy in the form that other programs read
    #[command(
        after_help = "Example:\n  agent-monitor policy export --seccomp coding-agent.yaml --var WORKSPACE=/w > seccomp.json"
    )]
    Export {
        /// The rules for system calls, as a seccomp profile for OCI runtimes (containerd, runc, podman)
        #[arg(long, required = true)]
        seccomp: bool,
        /// Policy: a file (with a slash or the ending .yaml), or a name in the policy directory
        #[arg(value_name = "FILE|NAME")]
        policy: String,
        /// Values for the policy's variables
        #[command(flatten)]
        variables: Variables,
    },
    /// Put policies in force on this node: load them, or replace what is there by their names
    ///
    /// The daemon keeps them, over a restart and a boot, until they are deleted. What they include is looked for by name
    /// among what was applied before, then in the policy directory. One that is refused changes nothing.
    #[command(after_help = "Example:\n  agent-monitor policy apply coding-agent.yaml")]
    Apply {
        /// Files of policies
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Delete policies that were applied; agents that have one may do nothing any more
    #[command(after_help = "Example:\n  agent-monitor policy delete coding-agent")]
    Delete {
        /// Names of the policies
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show a policy as the daemon has it
    #[command(after_help = "Example:\n  agent-monitor policy show coding-agent")]
    Show {
        /// Name of the policy
        name: String,
        /// How to print
        #[command(flatten)]
        output: Output,
    },
}
