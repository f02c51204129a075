//! Watching where cgroups are made and removed. That one was is told at once.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::wait;

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
        let watched = inotify.clone();
        thread::Builder::new().name("cgroups".to_owned()).spawn(move || {
            loop {
                match wait(&watched, None, |_| {}) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

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
}
