//! The command line of `agents`.

use std::time::Duration;

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
    #[command(after_help = "Examples:
  agent-monitor agents bind /system.slice/bot.service --policy coding-agent
  agent-monitor agents bind /system.slice/bot.service --policy coding-agent --ttl 2h")]
    Bind {
        /// Path of the cgroup in the hierarchy
        cgroup: String,
        /// Name of a policy that the daemon has
        #[arg(long, value_name = "NAME")]
        policy: String,
        /// How long it is bound (90s, 2h 30m, 7days); then it may do nothing. Without it the binding has no end, and for a
        /// cgroup that is bound for a time this begins anew
        #[arg(long, value_name = "DURATION", value_parser = ttl)]
        ttl: Option<Duration>,
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

/// A time in whole seconds.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 90s or 2h"))?;
    if ttl.subsec_nanos() != 0 || ttl.is_zero() {
        return Err("write at least one second, and no part of one".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_whole_seconds_and_more_than_none() {
        assert_eq!(ttl("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "1500ms", "10", "soon", "-1s"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
    }
}
