//! The command line of `agents`.

use clap::Subcommand;

use super::{AgentOptions, Output};

/// The commands of `agents`.
#[derive(Debug, Subcommand)]
pub enum Agents {
    /// List the agents of this node
    #[command(after_help = "Example:\n  agent-monitor agents list")]
    List(Output),
    /// Show one agent
    #[command(after_help = "Example:\n  agent-monitor agents show coding-agent-3f2a")]
    Show {
        /// Id of the agent
        id: String,
        /// How to print
        #[command(flatten)]
        output: Output,
    },
    /// Bind a cgroup that is there to a policy
    #[command(after_help = "Example:\n  agent-monitor agents bind /system.slice/bot.service --policy coding-agent")]
    Bind {
        /// Path of the cgroup in the hierarchy
        cgroup: String,
        /// Name of a policy that the daemon has
        #[arg(long, value_name = "NAME")]
        policy: String,
        /// What else makes up the agent
        #[command(flatten)]
        agent: AgentOptions,
    },
    /// Unbind a cgroup that was bound, or end an agent that `run` left behind
    #[command(after_help = "Example:\n  agent-monitor agents unbind bot.service")]
    Unbind {
        /// Id of the agent
        id: String,
    },
}
