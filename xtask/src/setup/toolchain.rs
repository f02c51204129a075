//! The Rust toolchain that rust-toolchain.toml pins: its version, rustfmt, clippy, and the library's source, which the
//! kernel programs are built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::Mirror;
use crate::process;
use crate::workspace::{self, Workspace};

/// Suites that may hold the source of a compiler as new as ours.
const SUITES: [&str; 4] = ["trixie-backports", "forky", "sid", "trixie"];

/// Makes the pinned toolchain complete.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let pinned = pinned(workspace)?;
    let found = process::output(rustc(workspace).arg("--version"), "ask rustc for its version")?;
    let version = found.split_whitespace().nth(1).unwrap_or_default().to_owned();
    if version != pinned {
        bail!("rustc is {version}, and rust-toolchain.toml pins {pinned}; run `rustup toolchain install {pinned}`");
    }
    let sysroot = process::output(rustc(workspace).args(["--print", "sysroot"]), "ask rustc for its directory")?;
    let sysroot = PathBuf::from(sysroot.trim());
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if !sysroot.join("bin").join(program).is_file() {
            eprintln!("xtask: setup: adding {component} to the toolchain");
            add_component(workspace, component)?;
        }
    }
    if has_source(&sysroot) {
        return Ok(());
    }
    eprintln!("xtask: setup: adding rust-src to the toolchain");
    let Err(failure) = add_component(workspace, "rust-src") else {
        return Ok(());
    };
    eprintln!("xtask: setup: {failure:#}");
    eprintln!("xtask: setup: taking the source of {version} from Debian");
    source_of_debian(workspace, &version, &sysroot)
        .with_context(|| format!("give {} the library's source (rust-src of {version})", sysroot.display()))
}

fn pinned(workspace: &Workspace) -> Result<String> {
    let path = workspace.root.join("rust-toolchain.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let channel = text.lines().find_map(|line| line.trim().strip_prefix("channel")?.trim_start().strip_prefix('='));
    let channel = channel.with_context(|| format!("{} names no channel", path.display()))?;
    Ok(channel.trim().trim_matches('"').to_owned())
}

fn rustc(workspace: &Workspace) -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(&workspace.root);
    command
}

fn add_component(workspace: &Workspace, component: &str) -> Result<()> {
    let mut rustup = Command::new(process::find("rustup").context("rustup is not installed")?);
    rustup.args(["component", "add", component]).current_dir(&workspace.root);
    process::output(&mut rustup, &format!("add {component} to the toolchain")).map(drop)
}

fn has_source(sysroot: &Path) -> bool {
    source(sysroot).join("library/core/Cargo.toml").is_file()
}

fn source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust")
}

/// Unpacks Debian's package into the cache and links the toolchain to it. Only the very version will do: a compiler
/// builds no other version's `core`.
fn source_of_debian(workspace: &Workspace, version: &str, sysroot: &Path) -> Result<()> {
    let place = workspace.cache.join("rust-src").join(version);
    if !place.join("library/core/Cargo.toml").is_file() {
        let mirror = Mirror::find(&workspace.cache.join("apt"))?;
        let wanted = format!("{version}+");
        let mut found = None;
        for name in SUITES {
            let suite = mirror.suite(name)?;
            found = suite
                .versions("rust-src")?
                .into_iter()
                .find(|have| have.starts_with(&wanted))
                .map(|have| (suite, have));
            if found.is_some() {
                break;
            }
        }
        let (suite, package) =
            found.with_context(|| format!("Debian has no rust-src {version} in {}", SUITES.join(", ")))?;
        let unpacked = tempfile::tempdir_in(&workspace.cache)?;
        suite.unpack(&[format!("rust-src={package}")], unpacked.path())?;
        fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
        let tree = unpacked.path().join("usr/src").join(format!("rustc-{version}"));
        workspace::put(&tree.join("library"), &place.join("library"))?;
    }
    let link = source(sysroot);
    let parent = link.parent().context("the source's directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    std::os::unix::fs::symlink(&place, &link).with_context(|| format!("link {} to {}", link.display(), place.display()))
}
