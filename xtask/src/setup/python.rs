//! Tools that are written in Python, each in an environment of its own in the cache: the system's Python stays as it is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::packages;
use crate::process;
use crate::workspace::Workspace;

/// The version of schemathesis that CI uses.
const SCHEMATHESIS: &str = "4.32.5";

/// The program of schemathesis, installed where it is missing.
pub fn ensure_schemathesis(workspace: &Workspace) -> Result<PathBuf> {
    let place = workspace.cache.join(format!("schemathesis-{SCHEMATHESIS}"));
    let program = place.join("bin/schemathesis");
    if process::is_executable(&program) {
        return Ok(program);
    }
    let _lock = workspace.lock_cache()?;
    eprintln!("xtask: setup: installing schemathesis {SCHEMATHESIS} (takes a minute, once)");
    packages::ensure_one("python3", "python3")?;
    let make = || {
        let mut venv = Command::new("python3");
        process::output(venv.args(["-m", "venv", "--clear"]).arg(&place), "make an environment for schemathesis")
    };
    if make().is_err() {
        // Debian has what makes environments in a package of its own.
        packages::ensure_venv()?;
        make()?;
    }
    let mut pip = Command::new(place.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).arg(format!("schemathesis=={SCHEMATHESIS}"));
    process::run(&mut pip, "install schemathesis").inspect_err(|_| {
        // Half of it would be taken for all of it.
        let _ = fs::remove_dir_all(&place);
    })?;
    process::is_executable(&program).then_some(program).context("schemathesis was installed, and has no program")
}
