//! `cargo xtask setup`: a list of what the other commands need, each with a look whether it is there and a way to get it.

mod packages;
mod python;
mod tool;
mod toolchain;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::kernel::{self, Spec};
use crate::workspace::Workspace;

pub use packages::{ensure_one as ensure_package, ensure_work};
pub use python::ensure_schemathesis;
pub use tool::{BPF_LINKER, CARGO_DENY, CARGO_FUZZ, ensure as ensure_tool};

/// Options of `cargo xtask setup`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask setup --update-kernels")]
pub struct Options {
    /// Ask the mirror again which release each series of kernels has; else those in the cache are kept
    #[arg(long)]
    pub update_kernels: bool,
}

/// Installs what is missing, with the kernels of CI.
pub fn all(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    run(workspace, options, &[])?;
    let (kernels, _) = default_kernels(workspace)?;
    get_kernels(workspace, options, &kernels)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing, with these kernels.
pub fn run(workspace: &Workspace, options: &Options, kernels: &[Spec]) -> Result<()> {
    let start = Instant::now();
    packages::ensure().context("set up system packages")?;
    toolchain::ensure(workspace).context("set up the Rust toolchain")?;
    tool::ensure(workspace, BPF_LINKER).context("set up bpf-linker")?;
    get_kernels(workspace, options, kernels)?;
    eprintln!("xtask: setup: everything is there ({:.1} s)", start.elapsed().as_secs_f32());
    Ok(())
}

fn get_kernels(workspace: &Workspace, options: &Options, kernels: &[Spec]) -> Result<()> {
    for spec in kernels {
        if options.update_kernels {
            let kernel = kernel::update(workspace, spec)?;
            eprintln!("xtask: kernel {spec} is {}", kernel.release);
        } else {
            kernel::get(workspace, spec)?;
        }
    }
    Ok(())
}

/// The kernels that CI boots by default: the oldest that is supported, the newest, and those between that are kept up for
/// long. Debian drops one of the latter some day; such a one is told and comes second.
pub fn default_kernels(workspace: &Workspace) -> Result<(Vec<Spec>, Vec<Spec>)> {
    let series = |name: &str| Spec::Series(name.to_owned());
    let (mut kernels, mut left_out) = (vec![series("6.1")], Vec::new());
    for between in ["6.12", "6.18"].map(series) {
        match kernel::get(workspace, &between) {
            Ok(_) => kernels.push(between),
            Err(error) => {
                eprintln!("xtask: leaving out linux {between}: {error:#}");
                left_out.push(between);
            }
        }
    }
    kernels.push(Spec::Newest);
    Ok((kernels, left_out))
}
