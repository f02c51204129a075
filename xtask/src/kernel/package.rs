//! A kernel's directory: `vmlinuz` and `modules/NN-NAME.ko`, taken out of Debian's packages. Knows how those are split.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Kernel;
use crate::apt::Suite;
use crate::process;

/// Modules that the machine and the scenarios need where they are not built in, in the order in which they need each
/// other. Where the list changes, so does the name of the cache's directory in `kernel.rs`.
const MODULES: [&str; 13] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "fuse",
    "virtiofs",
    "overlay",
    "libcrc32c",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "sctp",
];

/// Packages that may hold the files of a release: newer ones are split, and `linux-image` is a stub then.
const PARTS: [&str; 4] = ["linux-image", "linux-binary", "linux-modules", "linux-base"];

/// Downloads a release and lays its directory out in `dir`.
pub fn download(suite: &Suite, release: &str, dir: &Path) -> Result<()> {
    let mut packages = Vec::new();
    for part in PARTS {
        let name = format!("{part}-{release}");
        packages.extend(suite.packages(&name)?.into_iter().filter(|package| *package == name));
    }
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked).with_context(|| format!("create {}", unpacked.display()))?;
    suite.unpack(&packages, &unpacked)?;
    let modules = dir.join("modules");
    fs::create_dir(&modules).with_context(|| format!("create {}", modules.display()))?;
    for (number, module) in find_modules(&unpacked, release)? {
        install_module(&module, &modules, number)?;
    }
    let image = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")]
        .iter()
        .map(|path| unpacked.join(path))
        .find(|path| path.is_file())
        .with_context(|| format!("{} hold no vmlinuz of {release}", packages.join(", ")))?;
    fs::rename(&image, dir.join("vmlinuz")).with_context(|| format!("move {}", image.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))
}

/// Opens a kernel's directory in the cache.
pub fn open(dir: &Path) -> Result<Kernel> {
    let release =
        dir.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no name", dir.display()))?;
    let image = dir.join("vmlinuz");
    if !image.is_file() {
        bail!("{} is missing", image.display());
    }
    let entries = fs::read_dir(dir.join("modules")).with_context(|| format!("read the modules of linux {release}"))?;
    let mut modules: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.sort();
    Ok(Kernel { release: release.to_owned(), image, modules })
}

/// A kernel image of the user's own: its modules are found where a kernel package or `make modules_install` puts them.
pub fn of_user(image: &Path) -> Result<Kernel> {
    let image = std::path::absolute(image)?;
    let name = image.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let release = name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned();
    let root = image.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let modules = find_modules(root, &release)?.into_iter().map(|(_, path)| path).collect();
    Ok(Kernel { release, image, modules })
}

fn find_modules(root: &Path, release: &str) -> Result<Vec<(usize, PathBuf)>> {
    let mut found = Vec::new();
    for lib in ["usr/lib/modules", "lib/modules"] {
        let dir = root.join(lib).join(release).join("kernel");
        if dir.is_dir() {
            visit(&dir, &mut found)?;
            break;
        }
    }
    found.sort();
    Ok(found)
}

fn visit(dir: &Path, found: &mut Vec<(usize, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            visit(&path, found)?;
        } else if let Some((module, "ko" | "ko.xz")) = name.to_str().and_then(|name| name.split_once('.')) {
            let wanted = MODULES.iter().position(|wanted| *wanted == module.replace('-', "_"));
            found.extend(wanted.map(|number| (number, path)));
        }
    }
    Ok(())
}

fn install_module(module: &Path, dir: &Path, number: usize) -> Result<()> {
    let to = dir.join(format!("{number:02}-{}.ko", MODULES[number]));
    fs::copy(module, &to).with_context(|| format!("copy {}", module.display()))?;
    if module.extension().is_some_and(|extension| extension == "xz") {
        let packed = to.with_extension("ko.xz");
        fs::rename(&to, &packed).with_context(|| format!("move {}", to.display()))?;
        let mut unxz = Command::new(process::need("busybox")?);
        unxz.arg("unxz").arg(&packed);
        process::output(&mut unxz, &format!("unpack {}", module.display()))?;
    }
    Ok(())
}
