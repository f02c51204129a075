//! Watching directories. A change in the policy directory is told once things have been quiet for a moment; that a cgroup was
//! made or removed is told at once.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// How long nothing may change before a change is told: an editor or an update of many files is one change.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Longest time that a change waits for things to be quiet.
const LONGEST: Duration = Duration::from_secs(2);

/// Watches the policy directory in a thread, until the receiver is gone and something changes, or the process ends.
///
/// # Errors
/// The directory can't be watched.
pub fn watch_policies(directory: PathBuf, changed: mpsc::Sender<()>) -> io::Result<()> {
    let watch = Watch::start(&directory)?;
    let thread = thread::Builder::new().name("policies".to_owned()).spawn(move || {
        if let Err(error) = watch.run(&changed) {
            let directory = directory.display();
            tracing::error!(%error, "cannot watch the policy directory {directory} any more; send SIGHUP to read it again");
        }
    });
    thread.map(drop)
}

/// Tells of cgroups that are made and removed.
pub struct CgroupWatch {
    inotify: Arc<OwnedFd>,
}

impl CgroupWatch {
    /// Watches in a thread, until the receiver is gone and something changes, or the process ends. Nothing is watched before
    /// [`Self::look_at`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start(changed: mpsc::Sender<()>) -> io::Result<Self> {
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let watch = Watch { inotify: inotify.clone() };
        thread::Builder::new().name("cgroups".to_owned()).spawn(move || {
            loop {
                match watch.wait(None) {
                    Ok(_) if changed.blocking_send(()).is_ok() => {}
                    Ok(_) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot watch cgroups");
                        return;
                    }
                }
            }
        })?;
        Ok(Self { inotify })
    }

    /// Looks at where this directory is or would be: in the lowest one above it that is there.
    pub fn look_at(&self, directory: &Path) {
        for above in directory.ancestors().skip(1) {
            let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, above, names) {
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot watch {}", above.display());
                    return;
                }
                Ok(_) => return,
            }
        }
    }
}

/// What both wait on.
struct Watch {
    inotify: Arc<OwnedFd>,
}

impl Watch {
    fn start(directory: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let names = WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CREATE;
        inotify::add_watch(&inotify, directory, names | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR)?;
        Ok(Self { inotify: Arc::new(inotify) })
    }

    fn run(&self, changed: &mpsc::Sender<()>) -> io::Result<()> {
        loop {
            self.wait(None)?;
            let end = Instant::now() + LONGEST;
            while self.wait(Some(&QUIET))? && Instant::now() < end {}
            if changed.blocking_send(()).is_err() {
                return Ok(());
            }
        }
    }

    /// Waits for changes and forgets what they are, because the directory is read again whole. Says whether there were
    /// any.
    fn wait(&self, limit: Option<&Timespec>) -> io::Result<bool> {
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], limit) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_at_once_are_told_once() {
        let directory = std::env::temp_dir().join(format!("agent-monitor-{}-watch", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory can be made");
        let (changed, mut changes) = mpsc::channel(8);
        watch_policies(directory.clone(), changed).expect("directory can be watched");
        for name in ["a.yaml", "b.yaml", "c.yaml"] {
            std::fs::write(directory.join(name), "x").expect("file can be written");
        }
        changes.blocking_recv().expect("the change is told");
        std::fs::remove_file(directory.join("a.yaml")).expect("file can be removed");
        changes.blocking_recv().expect("the removal is told");
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn a_directory_is_told_of_when_it_is_made_and_removed_also_where_none_above_it_was_there() {
        let top = std::env::temp_dir().join(format!("agent-monitor-{}-cgroups", std::process::id()));
        std::fs::create_dir_all(&top).expect("directory can be made");
        let (changed, mut changes) = mpsc::channel(8);
        let watch = CgroupWatch::start(changed).expect("inotify is there");
        let directory = top.join("above/below");
        for step in [std::fs::create_dir, std::fs::remove_dir] as [fn(PathBuf) -> io::Result<()>; 2] {
            watch.look_at(&directory);
            step(top.join("above")).expect("can be made and removed");
            changes.blocking_recv().expect("it is told");
        }
        std::fs::remove_dir(&top).expect("directory can be removed");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let (changed, _changes) = mpsc::channel(1);
        assert!(watch_policies("/does/not/exist".into(), changed).is_err());
    }
}
