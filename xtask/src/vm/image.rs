//! What is in the machine: the initramfs with busybox, the kernel's modules, our programs and the user's files.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Root;
use super::cpio::Archive;
use crate::kernel::Kernel;
use crate::process;

/// Files to be found in the machine, and the command to run there.
#[derive(Debug, Clone)]
pub struct Payload {
    /// What the root directory is made of.
    pub root: Root,
    /// Programs for `/usr/local/bin`.
    pub programs: Vec<PathBuf>,
    /// Directory for `/etc/agent-monitor/policies`.
    pub policies: Option<PathBuf>,
    /// Files and directories for `/root`.
    pub with: Vec<PathBuf>,
    /// Text for `sh -c`.
    pub command: String,
}

/// Files of the minimal root directory. The hash in `shadow` is no hash of anything.
const ETC: [(&str, u32, &str); 8] = [
    ("passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
    ("shadow", 0o640, "root:$6$test$not-a-hash:20000:0:99999:7:::\n"),
    ("hosts", 0o644, "127.0.0.1 localhost machine\n::1 localhost\n"),
    ("hostname", 0o644, "machine\n"),
    ("nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n"),
    ("resolv.conf", 0o644, ""),
    ("os-release", 0o644, "ID=machine\nNAME=machine\nPRETTY_NAME=\"initramfs of cargo xtask vm\"\n"),
];

/// Writes the initramfs for one boot.
pub fn write(kernel: &Kernel, payload: &Payload, to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
    // Not compressed: unpacking would cost the machine more than the copy costs us.
    let mut archive = Archive::new(BufWriter::with_capacity(1 << 20, file));
    let busybox = process::need("busybox")?;
    archive.copy(&busybox, "bin/busybox")?;
    add_applets(&mut archive, &busybox)?;
    archive.bytes("init", 0o755, include_bytes!("init.sh"))?;
    for module in &kernel.modules {
        let name = module.file_name().with_context(|| format!("{} has no name", module.display()))?;
        archive.copy(module, &format!("modules/{}", name.to_string_lossy()))?;
    }
    for directory in ["dev", "proc", "sys", "run", "var/tmp", "mnt", "usr/lib"] {
        archive.directory(directory, 0o755)?;
    }
    archive.directory("tmp", 0o1777)?;
    let prefix = match payload.root {
        Root::Minimal => {
            for (name, mode, text) in ETC {
                archive.bytes(&format!("etc/{name}"), mode, text.as_bytes())?;
            }
            ""
        }
        // The upper of the two read-only layers, see init.sh.
        Root::Host => "payload/",
    };
    add_payload(&mut archive, payload, prefix, &busybox)?;
    archive.finish()
}

fn add_payload<W: std::io::Write>(
    archive: &mut Archive<W>,
    payload: &Payload,
    prefix: &str,
    busybox: &Path,
) -> Result<()> {
    archive.directory(&format!("{prefix}root"), 0o700)?;
    archive.directory(&format!("{prefix}.machine"), 0o700)?;
    archive.copy(busybox, &format!("{prefix}.machine/busybox"))?;
    archive.bytes(&format!("{prefix}.machine/boot.sh"), 0o644, include_bytes!("boot.sh"))?;
    archive.bytes(&format!("{prefix}.machine/command"), 0o644, payload.command.as_bytes())?;
    if let Some(policies) = &payload.policies {
        archive.copy(policies, &format!("{prefix}etc/agent-monitor/policies"))?;
    }
    for (dir, files) in [("usr/local/bin", &payload.programs), ("root", &payload.with)] {
        for path in files {
            let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
            archive.copy(path, &format!("{prefix}{dir}/{}", name.to_string_lossy()))?;
        }
    }
    Ok(())
}

fn add_applets<W: std::io::Write>(archive: &mut Archive<W>, busybox: &Path) -> Result<()> {
    let list = process::output(Command::new(busybox).arg("--list-full"), "list busybox's programs")?;
    let is_program = |path: &&str| path.contains('/') && *path != "bin/busybox";
    for path in list.lines().filter(is_program) {
        archive.symlink(path, "/bin/busybox")?;
    }
    Ok(())
}
