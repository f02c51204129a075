//! `load`: the child of a daemon that loads and pins the kernel programs. What it needed for that goes with it.

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::end_with;
use crate::bpf;
use crate::cli::Load;

/// Loads; standard input is the lock of the pins, and standard output takes the answer.
pub fn load(options: Load) -> ExitCode {
    match answer(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer(options: Load) -> Result<()> {
    end_with(options.parent)?;
    let lock = rustix::stdio::stdin().try_clone_to_owned().context("cannot use standard input")?;
    bpf::serve_loading(&options.options(), lock, io::stdout().lock()).context("cannot load")
}
