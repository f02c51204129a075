//! Where things are: the checkout, the build directories and the cache. Owns no state but paths; creates only the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The directories that every command works with.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The checkout, where the workspace's `Cargo.toml` is.
    pub root: PathBuf,
    /// Cargo's target directory for host builds.
    pub target: PathBuf,
    /// What survives `cargo clean`: kernels, tools, package lists.
    pub cache: PathBuf,
}

impl Workspace {
    /// Finds the checkout that this program was built from, and the user's cache.
    pub fn find() -> Result<Self> {
        let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = crate_dir
            .parent()
            .context("xtask's directory has no parent; run it as `cargo xtask` inside the checkout")?
            .to_path_buf();
        if !root.join("Cargo.toml").is_file() {
            bail!("{} holds no Cargo.toml; run `cargo xtask` inside the checkout", root.display());
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let cache = cache_dir()?;
        fs::create_dir_all(&cache).with_context(|| {
            format!("create cache directory {} (AGENT_MONITOR_CACHE overrides it)", cache.display())
        })?;
        Ok(Self { root, target, cache })
    }

    /// Target directory of what runs in the machine: other flags than host builds, so it is a directory of its own.
    pub fn vm_target(&self) -> PathBuf {
        self.target.join("vm")
    }

    /// Where the tools that `setup` builds are, to be put in front of `PATH`.
    pub fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    /// Takes the cache's lock, so that two runs do not fetch or build the same thing; it is released on drop.
    pub fn lock_cache(&self) -> Result<File> {
        let path = self.cache.join("lock");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("AGENT_MONITOR_CACHE") {
        return Ok(std::path::absolute(dir)?);
    }
    let base = set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("neither AGENT_MONITOR_CACHE, XDG_CACHE_HOME nor HOME is set; set one of them")?;
    Ok(base.join("agent-monitor"))
}

/// Puts a finished file or directory in its place, replacing an old directory.
pub fn put(from: &Path, to: &Path) -> Result<()> {
    if to.is_dir() {
        fs::remove_dir_all(to).with_context(|| format!("remove old {}", to.display()))?;
    }
    fs::rename(from, to).with_context(|| format!("move {} to {}", from.display(), to.display()))
}
