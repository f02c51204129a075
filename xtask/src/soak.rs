//! `cargo xtask soak`: agents, policies, daemons and followers come and go in a machine, and nothing may pile up.

use std::process::ExitCode;

use anyhow::Result;

use crate::ci::scenarios;
use crate::kernel::Spec;
use crate::setup;
use crate::vm;
use crate::workspace::Workspace;

/// Options of `cargo xtask soak`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask soak --seconds 600 --kernel 6.12")]
pub struct Options {
    /// How long it goes on
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(60..))]
    seconds: u64,
    /// Kernel to boot; may be given again
    #[arg(long = "kernel", value_name = "6.1|6.12|6.18|newest|PATH", default_values = ["newest"])]
    kernels: Vec<Spec>,
}

/// Boots the kernels and runs the soak on each.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::run(workspace, &setup::Options::default(), &options.kernels)?;
    vm::run(workspace, &scenarios::soak(workspace, &options.kernels, options.seconds)?)
}
