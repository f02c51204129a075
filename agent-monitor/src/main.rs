//! agent-monitor: deny by default for AI agents, in the kernel. Daemon and command line.

mod bind;
mod bpf;
mod cli;
mod cmd;
mod config;
mod control;
mod daemon;
mod enrich;
mod event;
mod lock;
mod record;
mod seccomp;
mod sink;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::parse().map_or_else(|code| code, cmd::execute)
}
