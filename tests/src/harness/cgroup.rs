//! Cgroups of the scenarios: made, entered, emptied, removed.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::wait::{limit, ready};

/// Where the unified hierarchy is mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";
/// Where `run` without a daemon puts its agents.
pub const RUN: &str = "/agent-monitor-run.slice";
/// Where it puts who ends them if it is killed.
pub const GUARDS: &str = "/agent-monitor-run.slice/guards";

/// A cgroup that is emptied and removed at the end, with all below it.
#[derive(Debug)]
pub struct Cgroup {
    /// Path in the hierarchy.
    pub path: String,
}

impl Cgroup {
    /// Makes the cgroup, and those above it.
    pub fn make(path: &str) -> Result<Self> {
        fs::create_dir_all(directory(path)).with_context(|| format!("make the cgroup {path}"))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Its directory.
    pub fn directory(&self) -> PathBuf {
        directory(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left shows in the next scenario that uses the name.
        let _ = remove(&self.directory());
    }
}

/// The directory of the cgroup at this path of the hierarchy.
pub fn directory(path: &str) -> PathBuf {
    Path::new(MOUNT).join(path.trim_start_matches('/'))
}

/// The directory of the cgroup that a process is in.
pub fn of(pid: i64) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    // Hierarchies of version 1 have lines, too: one that a scenario made may be there for a while after it.
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(directory(path.with_context(|| format!("process {pid} is in no unified hierarchy: {text:?}"))?))
}

/// The kernel's id of a cgroup.
pub fn id(directory: &Path) -> Result<u64> {
    Ok(fs::metadata(directory).with_context(|| format!("look at {}", directory.display()))?.ino())
}

/// Moves a process into a cgroup.
pub fn enter(directory: &Path, pid: u32) -> Result<()> {
    let procs = directory.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| format!("write {pid} to {}", procs.display()))
}

/// Kills what is in a cgroup and below it, and removes it.
pub fn remove(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    fs::write(directory.join("cgroup.kill"), "1")?;
    until(directory, "populated 0", limit())?;
    remove_tree(directory)
}

fn remove_tree(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory).with_context(|| format!("remove {}", directory.display()))
}

/// Waits until each `run` without a daemon that has ended is done: its guard has ended, and with it what it kept attached.
pub fn until_no_guard() -> Result<()> {
    let guards = directory(GUARDS);
    // All programs are detached one after the other.
    if guards.exists() { until(&guards, "populated 0", limit() * 4) } else { Ok(()) }
}

/// Waits until this is among what a cgroup tells of itself in `cgroup.events`.
pub fn until(directory: &Path, event: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut events = File::open(directory.join("cgroup.events"))?;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.contains(event) {
            return Ok(());
        }
        let is_changed = ready(events.as_fd(), libc::POLLPRI, deadline);
        ensure!(is_changed, "{} does not come to tell of `{event}`, but of {text:?}", directory.display());
    }
}
