//! `cargo xtask test`: sets up, then runs the checks of `ci`; on demand what takes too long for each change.

mod hard;
mod kernels;

use std::process::ExitCode;

use anyhow::Result;

use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{ci, setup};

/// Options of `cargo xtask test`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask test --kernel 6.12")]
pub struct Options {
    /// Kernel for the steps that boot one; may be given again [default: 6.1, 6.12, 6.18 and newest]
    #[arg(long = "kernel", value_name = "6.1|6.12|6.18|newest|PATH")]
    kernels: Vec<Spec>,
    /// Instead of the checks, stage the scenarios on all kernels that Debian has, or on those of `--kernel`, and write
    /// docs/kernel-support.md
    #[arg(long)]
    all_kernels: bool,
    /// Instead of the checks, the scenarios on kernels that check their memory, and stress-ng as an agent [default
    /// kernels: 6.1 and newest]
    #[arg(long, conflicts_with = "all_kernels")]
    hard: bool,
}

/// Sets up and runs what was asked for.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    // All kernels of Debian are found by themselves: some are in suites that are not searched for a single one.
    let needed = if options.all_kernels { &[] } else { options.kernels.as_slice() };
    setup::run(workspace, &setup::Options::default(), needed)?;
    if options.all_kernels {
        return kernels::run(workspace, &options.kernels);
    }
    if options.hard {
        let oldest_and_newest = [Spec::Series("6.1".to_owned()), Spec::Newest];
        return hard::run(workspace, if options.kernels.is_empty() { &oldest_and_newest } else { &options.kernels });
    }
    ci::run(workspace, &ci::Options { steps: Vec::new(), kernels: options.kernels.clone(), bless_verifier: false })
}
