//! Debian packages: looked for by the program that is needed, and installed only if one is missing.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::{apt, process, vm};

/// Programs and the packages that they come in.
const PROGRAMS: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cc", "gcc"),
    ("strip", "binutils"),
    ("setpriv", "util-linux"),
    ("dpkg-deb", "dpkg"),
    ("ip", "iproute2"),
    ("git", "git"),
    ("python3", "python3"),
];

/// What the step `work` of `cargo xtask ci` shows to agents: files of the distribution, where its packages put them, and
/// the packages.
const WORK: [(&str, &str); 13] = [
    ("/usr/bin/gcc", "gcc"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/node", "nodejs"),
    ("/usr/bin/npm", "npm"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/pip3", "python3-pip"),
    ("/usr/lib/python3/dist-packages/setuptools", "python3-setuptools"),
    ("/usr/lib/python3/dist-packages/wheel", "python3-wheel"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/awk", "mawk"),
    ("/usr/bin/bash", "bash"),
    ("/usr/sbin/logrotate", "logrotate"),
];

/// Installs the packages that are missing.
pub fn ensure() -> Result<()> {
    install(&missing())
}

/// Installs the packages that are missing for the step `work`.
pub fn ensure_work() -> Result<()> {
    let missing = WORK.iter().filter(|(file, _)| !Path::new(file).exists());
    install(&missing.map(|(_, package)| *package).collect::<Vec<_>>())
}

/// Installs the package of a program that only one command needs, if it is missing.
pub fn ensure_one(program: &str, package: &str) -> Result<()> {
    if process::find(program).is_some() { Ok(()) } else { install(&[package]) }
}

/// Installs the package that makes Python's environments.
pub fn ensure_venv() -> Result<()> {
    install(&["python3-venv"])
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if process::find("apt-get").is_none() {
        bail!("missing: {list} (names of Debian's packages), and this system has no apt-get; install them its way");
    }
    let user = process::output(std::process::Command::new("id").arg("-u"), "ask who we are")?;
    if user.trim() != "0" {
        bail!("missing: {list}; run: sudo apt-get update && sudo apt-get install --no-install-recommends {list}");
    }
    eprintln!("xtask: setup: installing {list}");
    apt::install(missing)
}

fn missing() -> Vec<&'static str> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| process::find(program).is_none()).map(|(_, package)| *package).collect();
    if !process::find("busybox").is_some_and(|path| is_static(&path)) {
        missing.push("busybox-static");
    }
    if vm::virtiofsd().is_none() {
        missing.push(virtiofsd_package());
    }
    missing
}

/// Whether a program needs no dynamic loader: the machine has none.
fn is_static(program: &Path) -> bool {
    let loader = b"/lib64/ld-linux";
    fs::read(program).is_ok_and(|bytes| !bytes.windows(loader.len()).any(|window| window == loader))
}

/// Debian 12 has virtiofsd in a package of QEMU's, later ones in one of its own.
fn virtiofsd_package() -> &'static str {
    let version = fs::read_to_string("/etc/debian_version").unwrap_or_default();
    if version.starts_with("12.") { "qemu-system-common" } else { "virtiofsd" }
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn a_program_with_a_loader_is_not_static() {
        // This test itself is linked dynamically on the hosts that xtask is built for.
        assert!(!is_static("/proc/self/exe".as_ref()));
        assert!(!is_static("/no/such/program".as_ref()));
    }
}
