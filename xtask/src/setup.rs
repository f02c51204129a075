//! `cargo xtask setup`: a list of what the other commands need, each with a look whether it is there and a way to get it.

mod linker;
mod packages;
mod toolchain;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::kernel::{self, Spec};
use crate::workspace::Workspace;

pub use linker::install as install_cargo_tool;
pub use packages::ensure_work;

/// Options of `cargo xtask setup`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask setup --update-kernels")]
pub struct Options {
    /// Ask the mirror again which release each series of kernels has; else those in the cache are kept
    #[arg(long)]
    pub update_kernels: bool,
}

/// Installs what is missing.
pub fn run(workspace: &Workspace, options: &Options, kernels: &[Spec]) -> Result<ExitCode> {
    let start = Instant::now();
    packages::ensure().context("set up system packages")?;
    toolchain::ensure(workspace).context("set up the Rust toolchain")?;
    linker::ensure(workspace).context("set up bpf-linker")?;
    for spec in kernels {
        if options.update_kernels {
            let kernel = kernel::update(workspace, spec)?;
            eprintln!("xtask: kernel {spec} is {}", kernel.release);
        } else {
            kernel::get(workspace, spec)?;
        }
    }
    eprintln!("xtask: setup: everything is there ({:.1} s)", start.elapsed().as_secs_f32());
    Ok(ExitCode::SUCCESS)
}

/// The kernels that the scenarios run on by default: the oldest that is supported, and the newest.
pub fn default_kernels() -> Vec<Spec> {
    vec![Spec::Series("6.1".to_owned()), Spec::Newest]
}
