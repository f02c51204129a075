//! Identifies the sources that decide what is made of a document, for [`BUILD`](src/lib.rs): the compiler's own, the
//! definitions that it shares with the kernel programs, and the versions of what it is built with.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 3] = ["agent-monitor-policy/src", "agent-monitor-common/src", "Cargo.lock"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let mut hasher = DefaultHasher::new();
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
        add(&root, Path::new(source), &mut hasher)?;
    }
    println!("cargo:rustc-env=AGENT_MONITOR_COMPILER={:016x}", hasher.finish());
    Ok(())
}

/// Adds a file, or all files of a directory in the order of their names.
fn add(root: &Path, path: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let full = root.join(path);
    if !full.is_dir() {
        path.hash(hasher);
        return fs::read(full).map(|bytes| bytes.hash(hasher));
    }
    let mut names = fs::read_dir(full)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    names.iter().try_for_each(|name| add(root, &path.join(name), hasher))
}
