//! Builds the kernel programs for the BPF target and puts the object, compressed, into `OUT_DIR`.
//!
//! This is what aya-build does, except that aya-build can't ask for a CPU version: the programs need v3 (atomic
//! operations with a result, 32-bit arithmetic), which every kernel from 5.12 on has.

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

const PACKAGE: &str = "agent-monitor-ebpf";
const TARGET: &str = "bpfel-unknown-none";
/// A profile of the workspace.
const PROFILE: &str = "kernel-programs";

fn main() -> Result<()> {
    let workspace =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?).join("..");
    for changed in [PACKAGE, "agent-monitor-common", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={}", workspace.join(changed).display());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH is not set")?;
    ensure!(arch == "x86_64", "the kernel programs are built for x86_64 only so far, not for {arch}");

    // The kernel programs are a build of their own: another target, other flags, unstable cargo features. Nothing of the
    // outer build's environment may reach it.
    let flags = [
        "--cfg=bpf_target_arch=\"x86_64\"",
        // BTF, which bpf_loop's callbacks and the maps need, is made from debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
    ];
    let target_dir = out.join("kernel-programs");
    let mut cargo = Command::new(std::env::var_os("CARGO").context("CARGO is not set")?);
    cargo
        .current_dir(&workspace)
        .args(["build", "--package", PACKAGE, "--profile", PROFILE, "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // `-Z build-std` on a stable compiler. For this build only: see rust-toolchain.toml.
        .env("RUSTC_BOOTSTRAP", "1");
    for (ours, theirs) in [("CARGO_FEATURE_KERNEL_LOG", "log"), ("CARGO_FEATURE_OTHER_LAYOUT", "other-layout")] {
        if std::env::var_os(ours).is_some() {
            cargo.args(["--features", theirs]);
        }
    }
    for inherited in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_MAKEFLAGS"] {
        cargo.env_remove(inherited);
    }
    if let Some(path) = path_with_tools() {
        cargo.env("PATH", path);
    }
    let output = cargo.output().with_context(|| format!("run {cargo:?}"))?;
    ensure!(
        output.status.success(),
        "the kernel programs were not built (`cargo xtask setup` installs rust-src and bpf-linker where they are missing):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let object = target_dir.join(TARGET).join(PROFILE).join(PACKAGE);
    let to = out.join(PACKAGE).with_extension("gz");
    let made = std::fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    let stripped = without_debug_information(&made).with_context(|| format!("strip {}", object.display()))?;
    std::fs::write(&to, compressed(&stripped)?).with_context(|| format!("write {}", to.display()))
}

/// The daemon needs the object only where no programs are pinned yet, and carries a fifth of its size until then.
fn compressed(object: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(object)?;
    Ok(encoder.finish()?)
}

/// The object without the debug information that its BTF was made from: the daemon carries and reads nine tenths less.
fn without_debug_information(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in builder.sections.iter_mut() {
        let name = section.name.as_slice();
        section.delete = [".debug_", ".rel.debug_"].iter().any(|kind| name.starts_with(kind.as_bytes()));
    }
    builder.delete_orphans();
    // The linker keeps the names of sections with those of symbols.
    let names = builder.sections.add();
    (names.name, names.sh_type, names.data) = (".shstrtab".into(), SHT_STRTAB, SectionData::SectionString);
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// `PATH` with the linker that `cargo xtask setup` put into the cache in front, so that `cargo build` alone is enough. The
/// same places as in `xtask/src/workspace.rs`.
fn path_with_tools() -> Option<OsString> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("AGENT_MONITOR_CACHE").or_else(|| {
        let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
        Some(base.join("agent-monitor"))
    })?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(cache.join("tools/bin")).chain(std::env::split_paths(&path))).ok()
}
