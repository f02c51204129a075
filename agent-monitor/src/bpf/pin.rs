//! Pins: programs, their links and their maps as files of the BPF file system, so that enforcement goes on when the process
//! that loaded them ends, however it ends.
//!
//! Below the place (`/sys/fs/bpf/agent-monitor`) each build has a directory of its own, named by its version and by all that
//! makes its programs what they are. It is made under another name and renamed once everything in it is there and has been
//! tested: a directory that is not finished guards nobody, and is removed at the next start.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use agent_monitor_common::hook::{Attach, HOOKS, Hook};
use agent_monitor_common::layout::LAYOUT;
use aya::maps::{Map, MapData};
use aya::programs::BtfTracePoint;
use aya::programs::links::{FdLink, PinnedLink};

use super::error::{LoadError, chain};
use super::load::{LoadOptions, Loaded, OBJECT};
use super::map::{MapError, Open};
use crate::lock;

/// File system magic of the BPF file system (`include/uapi/linux/magic.h`).
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// Stands before the number of the layout in the name of a directory.
const LAYOUT_WORD: &str = "layout";
/// End of the name of a directory that is not finished. The file system refuses names with a dot.
const UNFINISHED: &str = "-unfinished";
/// Stands behind the name, before a number, once it is known that it will not be finished.
const ENDED: &str = "-ended";
/// The maps that are kept. All that user space reads or writes, and what must be known again after an upgrade.
pub(super) const MAPS: [&str; 15] = [
    "BINDINGS",
    "AGENTS",
    "SLOTS",
    "IMAGES_SMALL",
    "IMAGES_MEDIUM",
    "IMAGES_LARGE",
    "BINDINGS_LOST",
    "MONITORS",
    "IPC_OBJECTS",
    "COUNTERS",
    "SEQUENCES",
    "FOLD_WORDS",
    "FOLDED",
    "DENIALS",
    "TELEMETRY",
];

/// Where all pins are, held by one daemon alone.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    /// The lock; the kernel releases it when the last process ends that has it.
    lock: File,
}

/// The pins of one build.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
}

impl Place {
    /// The directory `agent-monitor` of the BPF file system at `bpffs`, made where it is missing.
    ///
    /// # Errors
    /// No BPF file system is there, or another daemon holds the place.
    pub fn hold(bpffs: &Path) -> Result<Self, LoadError> {
        Self::with(bpffs, None)
    }

    /// The same, for a process that was given the lock of another: it holds the place as long as one of both does.
    ///
    /// # Errors
    /// As [`Self::hold`], and where it is another file.
    pub fn inherited(bpffs: &Path, lock: File) -> Result<Self, LoadError> {
        Self::with(bpffs, Some(lock))
    }

    fn with(bpffs: &Path, given: Option<File>) -> Result<Self, LoadError> {
        let directory = bpffs.join("agent-monitor");
        let failed = |action, error: io::Error| LoadError::pins(&directory, action, error);
        let magic = rustix::fs::statfs(bpffs).map(|found| found.f_type.cast_unsigned());
        if magic.map_err(|error| failed("look for", error.into()))? != BPFFS_MAGIC {
            let message =
                format!("no BPF file system is there; mount one: mount -t bpf -o mode=0700 bpf {}", bpffs.display());
            return Err(failed("make", io::Error::new(io::ErrorKind::NotFound, message)));
        }
        make(&directory).map_err(|error| failed("make", error))?;
        // On a BPF file system that everybody may write to, somebody else may have been first.
        let made = fs::symlink_metadata(&directory).map_err(|error| failed("look at", error))?;
        if !made.is_dir() || made.uid() != 0 || made.mode() & 0o022 != 0 {
            let message =
                "it is not root's alone; see whose it is, remove it, and mount the file system with mode=0700";
            return Err(failed("use", io::Error::new(io::ErrorKind::PermissionDenied, message)));
        }
        let is_given = given.is_some();
        let lock = given.map_or_else(|| File::open(&directory), Ok).map_err(|error| failed("open", error))?;
        if is_given {
            let found = lock.metadata().map_err(|error| failed("look at", error))?;
            if (found.dev(), found.ino()) != (made.dev(), made.ino()) {
                return Err(failed(
                    "lock",
                    io::Error::new(io::ErrorKind::InvalidInput, "another file was given for it"),
                ));
            }
        }
        lock::take(&lock, "stop that first").map_err(|error| failed("lock", error))?;
        Ok(Self { directory, lock })
    }

    /// The pins of all builds: those that guard the node first, of these the newest. What was not finished is detached and put
    /// last, because it may have counted.
    pub fn standing(&self) -> Result<Vec<Pins>, LoadError> {
        let failed = |error| LoadError::pins(&self.directory, "read", error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let made = entry.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
            let mut pins = Pins { directory: entry.path() };
            if pins.name().ends_with(UNFINISHED) {
                pins.detach()?;
                pins.end().map_err(failed)?;
            }
            found.push((pins.guards(), made, pins));
        }
        found.sort_by_key(|(guards, made, _)| std::cmp::Reverse((*guards, *made)));
        Ok(found.into_iter().map(|(_, _, pins)| pins).collect())
    }

    /// One more descriptor of the lock.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// The pins with this name.
    pub fn named(&self, name: &OsStr) -> Pins {
        Pins { directory: self.directory.join(name) }
    }

    /// The directory of the build with this key, not made yet.
    pub fn unfinished(&self, key: &str) -> Pins {
        Pins { directory: self.directory.join(format!("{key}{UNFINISHED}")) }
    }
}

/// The name of this build's pins: whoever finds it finds the same programs, with the same maps, attached to the same
/// cgroup.
pub fn key(version: &str, options: &LoadOptions) -> String {
    let mut hasher = DefaultHasher::new();
    (OBJECT, options.partial, options.bindings).hash(&mut hasher);
    if let Ok(root) = fs::metadata(&options.roots.cgroup) {
        (root.dev(), root.ino()).hash(&mut hasher);
    }
    if cfg!(feature = "kernel-log") {
        // The log of the programs can be read by the process that loaded them only.
        std::process::id().hash(&mut hasher);
    }
    format!("{}-{LAYOUT_WORD}{LAYOUT}-{:016x}", version.replace('.', "-"), hasher.finish())
}

impl Pins {
    /// Whether these are the pins of the build with this key.
    pub fn is(&self, key: &str) -> bool {
        self.directory.file_name().is_some_and(|name| name == key)
    }

    /// Name of the directory.
    pub fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Name of the directory, as it is.
    pub fn file_name(&self) -> OsString {
        self.directory.file_name().unwrap_or_default().to_owned()
    }

    /// Leaves them as they are, also where they are not finished.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// What this build means by the values of its maps.
    pub fn layout(&self) -> Option<u32> {
        self.name().split('-').find_map(|word| word.strip_prefix(LAYOUT_WORD)?.parse().ok())
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.directory.join(kind).join(name)
    }

    /// Where a map is pinned.
    pub fn map_path(&self, name: &str) -> PathBuf {
        self.path("maps", name)
    }

    /// Where a program is pinned.
    pub fn program_path(&self, hook: &Hook) -> PathBuf {
        self.path("programs", hook.name)
    }

    /// Where a link is pinned.
    fn link_path(&self, hook: &Hook) -> PathBuf {
        self.path("links", hook.name)
    }

    /// Whether the program of a hook is attached by a pinned link.
    pub fn has_link(&self, hook: &Hook) -> bool {
        self.link_path(hook).exists()
    }

    /// Pins the maps.
    pub fn make_maps(&self, loaded: &Loaded) -> Result<(), LoadError> {
        let failed = |error: io::Error| LoadError::pins(&self.directory, "make", error);
        for directory in ["maps", "programs", "links"] {
            make(&self.directory.join(directory)).map_err(failed)?;
        }
        let pin = |error: aya::pin::PinError| failed(io::Error::other(chain(&error)));
        for name in MAPS {
            let map =
                loaded.object.map(name).ok_or_else(|| MapError::new(name, "pin", "the object has no such map"))?;
            map.pin(self.map_path(name)).map_err(pin)?;
        }
        Ok(())
    }

    /// Pins what was loaded and attached. From then on it stays when this process ends.
    pub fn make_programs(&self, loaded: &mut Loaded) -> Result<(), LoadError> {
        let failed = |error: io::Error| LoadError::pins(&self.directory, "make", error);
        let pin = |error: aya::pin::PinError| failed(io::Error::other(chain(&error)));
        for state in &loaded.hooks {
            if let Some(program) = loaded.object.program_mut(state.hook.name).filter(|program| program.fd().is_ok()) {
                program.pin(self.program_path(state.hook)).map_err(pin)?;
            }
        }
        for (hook, link) in loaded.links.drain(..) {
            link.pin(self.link_path(hook)).map_err(pin)?;
        }
        Ok(())
    }

    /// Gives a directory that was not finished a name that no other will have.
    fn end(&mut self) -> io::Result<()> {
        let name = self.name().replace(UNFINISHED, ENDED);
        let free =
            (0..).map(|number| self.directory.with_file_name(format!("{name}{number}"))).find(|path| !path.exists());
        let ended = free.ok_or(io::ErrorKind::AlreadyExists)?;
        fs::rename(&self.directory, &ended)?;
        self.directory = ended;
        Ok(())
    }

    /// Gives the directory its name: everything in it is there.
    pub fn finish(&mut self) -> Result<(), LoadError> {
        let name = self.name();
        let Some(name) = name.strip_suffix(UNFINISHED) else { return Ok(()) };
        let finished = self.directory.with_file_name(name);
        fs::rename(&self.directory, &finished).map_err(|error| LoadError::pins(&finished, "make", error))?;
        self.directory = finished;
        Ok(())
    }

    /// Detaches the programs, and keeps all else.
    pub fn detach(&self) -> Result<(), LoadError> {
        let directory = self.directory.join("links");
        remove_links(&directory).map_err(|error| LoadError::pins(&directory, "remove", error))
    }

    /// Removes the pins: links first, so that nothing is attached whose maps are gone.
    pub fn remove(&self) -> Result<(), LoadError> {
        self.detach()?;
        for kind in ["links", "programs", "maps"] {
            let directory = self.directory.join(kind);
            let removed = remove_files(&directory).and_then(|()| ignore_missing(fs::remove_dir(&directory)));
            removed.map_err(|error| LoadError::pins(&directory, "remove", error))?;
        }
        ignore_missing(fs::remove_dir(&self.directory))
            .map_err(|error| LoadError::pins(&self.directory, "remove", error))
    }

    /// Whether anything is attached: what was taken over from is not any more.
    pub fn guards(&self) -> bool {
        self.counts()[0] > 0
    }

    /// How many links, programs and maps there are.
    pub fn counts(&self) -> [usize; 3] {
        let count = |kind| fs::read_dir(self.directory.join(kind)).map_or(0, |entries| entries.flatten().count());
        ["links", "programs", "maps"].map(count)
    }

    /// The program of a hook that is attached on request.
    pub fn tracepoint(&self, hook: &Hook) -> Result<BtfTracePoint, aya::programs::ProgramError> {
        BtfTracePoint::from_pin(self.program_path(hook))
    }

    /// Pins the link of a hook that was attached on request.
    pub fn add_link(&self, hook: &Hook, link: FdLink) -> Result<(), LoadError> {
        let path = self.link_path(hook);
        let pinned = link.pin(&path).map(drop);
        pinned.map_err(|error| LoadError::pins(&path, "make", io::Error::other(chain(&error))))
    }

    /// Detaches a hook that was attached on request.
    pub fn remove_link(&self, hook: &Hook) -> Result<(), LoadError> {
        let path = self.link_path(hook);
        // Held while its name goes, so that it is detached by our closing it and not some time later.
        let link = PinnedLink::from_pin(&path);
        let removed = link.map_err(io::Error::other).and_then(PinnedLink::unpin).map(drop);
        removed.map_err(|error| LoadError::pins(&path, "remove", error))
    }

    /// Whether every hook that must have a program here has one: else what is missing.
    pub fn lacks(&self, needed: impl Fn(&Hook) -> bool) -> Option<&'static str> {
        let there = |hook: &Hook| match hook.attach {
            Attach::TracepointOnRequest(_) => self.program_path(hook).exists(),
            _ => self.has_link(hook),
        };
        let maps = MAPS.into_iter().find(|name| !self.map_path(name).exists());
        HOOKS.iter().find(|hook| needed(hook) && !there(hook)).map(|hook| hook.name).or(maps)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.name().ends_with(UNFINISHED)
            && let Err(error) = self.remove()
        {
            tracing::warn!("{error}");
        }
    }
}

impl Open for &Pins {
    fn map(&mut self, name: &'static str) -> Result<Map, MapError> {
        let map = MapData::from_pin(self.map_path(name)).and_then(Map::from_map_data);
        map.map_err(|error| MapError::new(name, "open the pin of", chain(&error)))
    }
}

fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Removes pinned links, each held open while its name goes: the kernel detaches one that is closed at once, and one that
/// only loses its name some time later.
fn remove_links(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let link = PinnedLink::from_pin(entry?.path()).map_err(io::Error::other)?;
        link.unpin().map(drop)?;
    }
    Ok(())
}

fn remove_files(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
