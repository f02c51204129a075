//! The unified cgroup hierarchy: making, finding, emptying and removing cgroups. A cgroup is named by its path from the
//! root of the hierarchy, `/agents.slice/coding-agent/3f2a`, and known to the kernel by its id, the directory's inode. A
//! path may be any bytes, and after some time lead to another cgroup; an id is never used again.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::record::escape::escape;

/// File system magic of cgroup2 (`include/uapi/linux/magic.h`).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Where the hierarchy is mounted.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
}

/// A cgroup that exists, or did when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Path from the root of the hierarchy, with a slash at its start and none at its end; the root is `/`.
    pub path: PathBuf,
    /// Id of the cgroup in the kernel.
    pub id: u64,
}

impl Cgroup {
    /// Its own name; empty for the root.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// A path of a cgroup as text that no bytes in it can forge.
pub fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// The path of the cgroup that a setting names, with or without slashes around it.
pub fn from_root(setting: &str) -> PathBuf {
    Path::new("/").join(setting.trim_matches('/'))
}

impl Hierarchy {
    /// The hierarchy at `mount`, or where `proc` says that cgroup2 is mounted if that is empty.
    ///
    /// # Errors
    /// No cgroup2 file system is there.
    pub fn open(mount: &Path, proc: &Path) -> io::Result<Self> {
        let mount = if mount.as_os_str().is_empty() { find(proc)? } else { mount.to_owned() };
        let magic = rustix::fs::statfs(&mount)?.f_type.cast_unsigned();
        if magic == CGROUP2_MAGIC {
            return Ok(Self { mount });
        }
        let message = format!("{} is no cgroup2 file system; mount one: mount -t cgroup2 none {0}", mount.display());
        Err(io::Error::new(ErrorKind::NotFound, message))
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The directory of a cgroup.
    pub fn directory(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.mount.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The cgroup with this path.
    ///
    /// # Errors
    /// The path is not one of a cgroup, or no such cgroup exists.
    pub fn look_up(&self, path: impl AsRef<Path>) -> io::Result<Cgroup> {
        let path = normal(path.as_ref())?;
        let metadata = fs::symlink_metadata(self.directory(&path))?;
        if metadata.is_dir() { Ok(Cgroup { path, id: metadata.ino() }) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// Makes a cgroup, which must not exist yet, and its parents where they are missing.
    ///
    /// # Errors
    /// It exists already, or the kernel refuses.
    pub fn make(&self, path: impl AsRef<Path>) -> io::Result<Cgroup> {
        let path = normal(path.as_ref())?;
        let directory = self.directory(&path);
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(&directory)?;
        self.look_up(&path)
    }

    /// The cgroup with this path, made where it is missing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make_or_look_up(&self, path: impl AsRef<Path>) -> io::Result<Cgroup> {
        let path = path.as_ref();
        match self.make(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.look_up(path),
            other => other,
        }
    }

    /// Whether any process is in the cgroup or below it. A cgroup that is gone has none.
    ///
    /// # Errors
    /// `cgroup.events` can't be read.
    fn populated(&self, path: &Path) -> io::Result<bool> {
        match fs::read_to_string(self.directory(path).join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Kills every process in the cgroup and below it.
    ///
    /// # Errors
    /// The kernel refuses; a cgroup that is gone is no error.
    pub fn kill(&self, path: &Path) -> io::Result<()> {
        match fs::write(self.directory(path).join("cgroup.kill"), "1") {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Kills every process in the cgroup and below it and waits, blocking the thread, until none is left. Says whether any was
    /// there.
    ///
    /// # Errors
    /// Some are left after `limit`, or the kernel refuses; a cgroup that is gone is no error.
    pub fn empty(&self, path: &Path, limit: Duration) -> io::Result<bool> {
        let populated = self.populated(path)?;
        if populated {
            self.kill(path)?;
            self.wait_empty(path, limit)?;
        }
        Ok(populated)
    }

    /// Waits, blocking the thread, until no process is left in the cgroup or below it.
    ///
    /// # Errors
    /// Some are left after `limit`, or `cgroup.events` can't be read.
    pub fn wait_empty(&self, path: &Path, limit: Duration) -> io::Result<()> {
        let events = match fs::File::open(self.directory(path).join("cgroup.events")) {
            Err(error) if gone(&error) => return Ok(()),
            other => other?,
        };
        let end = Instant::now() + limit;
        // Reading takes note of the state, and a change after that ends the poll.
        while self.populated_again(&events)? {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("processes are left in cgroup {}", shown(path)),
                ));
            }
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let mut descriptors = [PollFd::new(&events, PollFlags::PRI)];
            match poll(&mut descriptors, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn populated_again(&self, events: &fs::File) -> io::Result<bool> {
        let mut buffer = [0; 128];
        match rustix::io::pread(events, &mut buffer, 0) {
            Ok(length) => {
                let text = buffer.get(..length).unwrap_or_default();
                Ok(text.split(|byte| *byte == b'\n').any(|line| line == b"populated 1"))
            }
            Err(rustix::io::Errno::NODEV) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the cgroup and all below it, in which no process may be.
    ///
    /// # Errors
    /// The kernel refuses; a cgroup that is gone is no error.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let top = match self.look_up(path) {
            Err(error) if gone(&error) => return Ok(()),
            other => other?,
        };
        let below = self.descendants(&top)?;
        let paths = below.iter().rev().chain([&top]).map(|cgroup| &cgroup.path);
        for path in paths {
            match fs::remove_dir(self.directory(path)) {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether an error says that a cgroup does not exist any more.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// The path with a slash at its start, none at its end and none doubled.
fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut normal = PathBuf::from("/");
    for name in path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if matches!(name, b"." | b"..") || name.contains(&0) {
            let message = format!("{} is no path of a cgroup; write it like /agents.slice/name", shown(path));
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        normal.push(OsStr::from_bytes(name));
    }
    Ok(normal)
}

fn find(proc: &Path) -> io::Result<PathBuf> {
    let mounts = fs::read_to_string(proc.join("self/mounts"))?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(mount))
    });
    let message = "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup";
    mount.ok_or_else(|| io::Error::new(ErrorKind::NotFound, message))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn paths_are_made_normal_and_can_not_leave_the_hierarchy() {
        let normal = |path: &str| normal(Path::new(path)).ok().map(PathBuf::into_os_string);
        assert_eq!(normal("agents.slice//a/").as_deref(), Some(OsStr::new("/agents.slice/a")));
        assert_eq!(normal("/").as_deref(), Some(OsStr::new("/")));
        assert_eq!((normal("/a/../b"), normal("./a")), (None, None));
    }

    #[test]
    fn the_mount_is_found_and_its_absence_said() {
        let proc = std::env::temp_dir().join(format!("agent-monitor-{}-proc", std::process::id()));
        fs::create_dir_all(proc.join("self")).expect("directory can be made");
        fs::write(proc.join("self/mounts"), "proc /proc proc rw 0 0\nx /c/g cgroup2 rw 0 0\n")
            .expect("file can be made");
        assert_eq!(find(&proc).expect("is mounted"), Path::new("/c/g"));
        fs::write(proc.join("self/mounts"), "proc /proc proc rw 0 0\n").expect("file can be made");
        assert!(find(&proc).expect_err("is not mounted").to_string().contains("mount -t cgroup2"));
        assert!(Hierarchy::open(Path::new("/tmp"), &proc).is_err());
    }

    /// The hierarchy and a new cgroup of a test's own, where cgroups can be made.
    pub fn writable() -> Option<(Hierarchy, PathBuf)> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let Ok(hierarchy) = Hierarchy::open(Path::new(""), Path::new("/proc")) else {
            eprintln!("skipped: no cgroup2 file system is mounted");
            return None;
        };
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let top = PathBuf::from(format!("/agent-monitor-test-{}-{number}", std::process::id()));
        if hierarchy.make(&top).is_err() {
            eprintln!("skipped: cgroups can't be made here");
            return None;
        }
        Some((hierarchy, top))
    }

    #[test]
    fn a_cgroup_is_made_emptied_and_removed() {
        let Some((hierarchy, top)) = writable() else { return };
        let path = top.join("a");
        let made = hierarchy.make(&path).expect("can be made");
        assert_eq!(hierarchy.look_up(&path).ok().as_ref(), Some(&made));
        assert!(hierarchy.make(&path).is_err_and(|error| error.kind() == ErrorKind::AlreadyExists));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep starts");
        let moved = fs::write(hierarchy.directory(&path).join("cgroup.procs"), child.id().to_string());
        if moved.is_ok() {
            assert!(hierarchy.populated(&top).expect("is readable"));
            let early = hierarchy.wait_empty(&top, Duration::from_millis(1));
            assert!(early.is_err_and(|error| error.kind() == ErrorKind::TimedOut));
            hierarchy.kill(&top).expect("can be killed");
            hierarchy.wait_empty(&top, Duration::from_secs(60)).expect("gets empty");
        } else {
            child.kill().expect("can be killed");
        }
        child.wait().expect("was killed");
        hierarchy.remove(&top).expect("can be removed");
        assert!(!hierarchy.populated(&path).expect("gone is empty"));
        assert!(hierarchy.children(&made).expect("gone has none").is_empty());
    }
}
