//! Watching the policy directory: what is at its path, whichever directory that is. It may be missing, be removed and made anew,
//! or be another one that was renamed into its place; a watch is of one of these, so the path is looked at every second.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};
use tokio::sync::mpsc;

use super::wait;

/// How often the path is looked at.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long nothing may change before a change is told: an editor or an update of many files is one change.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Longest time that a change waits for things to be quiet.
const LONGEST: Duration = Duration::from_secs(2);

/// Why the directory is not watched, if it is not.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Why it is not.
    pub fn why(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, why: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = why.as_ref().filter(|_| known.is_none()) {
            tracing::error!("{why}");
        }
        *known = why;
    }
}

/// Watches the policy directory in a thread, until the receiver is gone and something changes, or the process ends. A first
/// change is told once it is watched, and each time that another directory is there.
///
/// # Errors
/// The kernel refuses.
pub fn watch_policies(directory: PathBuf, changed: mpsc::Sender<()>) -> io::Result<Trouble> {
    let trouble = Trouble::default();
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let mut place = Place { inotify, directory, seen: None, watch: None, trouble: trouble.clone() };
    thread::Builder::new().name("policies".to_owned()).spawn(move || {
        if let Err(error) = place.run(&changed) {
            let directory = place.directory.display();
            let why =
                format!("the policy directory {directory} is not watched any more: {error}; start the daemon again");
            place.trouble.set(Some(why));
        }
    })?;
    Ok(trouble)
}

/// Where the directory is.
struct Place {
    inotify: OwnedFd,
    directory: PathBuf,
    /// Device and inode of what was there last.
    seen: Option<(u64, u64)>,
    /// The watch of it.
    watch: Option<i32>,
    trouble: Trouble,
}

impl Place {
    fn run(&mut self, changed: &mpsc::Sender<()>) -> io::Result<()> {
        if !self.directory.is_dir() {
            tracing::warn!("there is no policy directory {}; it is looked for every second", self.directory.display());
        }
        loop {
            let is_another = self.settle();
            if !is_another && !self.wait(&LOOK)? {
                continue;
            }
            let end = Instant::now() + LONGEST;
            while self.wait(&QUIET)? && Instant::now() < end {}
            if changed.blocking_send(()).is_err() {
                return Ok(());
            }
        }
    }

    /// Watches what is at the path now. Says whether that may be something else than what was watched before.
    fn settle(&mut self) -> bool {
        // Before the watch: what comes in its place meanwhile is another one at the next look.
        let here = self.directory.metadata().ok().map(|directory| (directory.dev(), directory.ino()));
        if here == self.seen && here.is_some() == self.watch.is_some() {
            return false;
        }
        let is_another = std::mem::replace(&mut self.seen, here) != here;
        let old = self.watch.take();
        let added = here.map(|_| inotify::add_watch(&self.inotify, &self.directory, CHANGES));
        self.watch = added.and_then(Result::ok);
        if let Some(old) = old.filter(|old| Some(*old) != self.watch) {
            // It may be gone, and its watch with it.
            let _ = inotify::remove_watch(&self.inotify, old);
        }
        let directory = self.directory.display();
        let why = added.and_then(Result::err).map(|error| {
            format!("the policy directory {directory} can't be watched: {error}; send SIGHUP after a change")
        });
        self.trouble.set(why);
        is_another || self.watch.is_some()
    }

    /// Waits for changes and forgets what they are, because the directory is read again whole. Says whether there were any.
    fn wait(&mut self, limit: &Timespec) -> io::Result<bool> {
        let watch = &mut self.watch;
        wait(&self.inotify, Some(limit), |event: &Event<'_>| {
            // The directory is gone, and another may have its inode.
            if event.events().contains(ReadFlags::IGNORED) && Some(event.wd()) == *watch {
                *watch = None;
            }
        })
    }
}

/// What is told of the directory.
const CHANGES: WatchFlags = WatchFlags::MOVED_FROM
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory of a test's own, gone at the end.
    struct Top(PathBuf);

    impl Top {
        fn new(test: &str) -> Self {
            let top = std::env::temp_dir().join(format!("agent-monitor-{}-{test}", std::process::id()));
            let _ = fs::remove_dir_all(&top);
            fs::create_dir_all(&top).expect("directory can be made");
            Self(top)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn make(&self, name: &str) {
            fs::create_dir_all(self.path(name)).expect("directory can be made");
        }

        fn write(&self, name: &str) {
            fs::write(self.path(name), "x").expect("file can be written");
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).expect("can be renamed");
        }

        /// Turns a link in one step.
        fn turn(&self, link: &str, to: &str) {
            symlink(to, self.path("new")).expect("link can be made");
            self.rename("new", link);
        }

        /// Who looks at `policies`.
        fn place(&self) -> Place {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify is there");
            let trouble = Trouble::default();
            Place { inotify, directory: self.path("policies"), seen: None, watch: None, trouble }
        }
    }

    impl Drop for Top {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Whether anything was told until now.
    fn told(place: &mut Place) -> bool {
        place.wait(&Timespec { tv_sec: 0, tv_nsec: 0 }).expect("can be waited for")
    }

    #[test]
    fn many_changes_at_once_are_told_once() {
        let top = Top::new("watch");
        top.make("policies");
        let (changed, mut changes) = mpsc::channel(8);
        watch_policies(top.path("policies"), changed).expect("inotify is there");
        changes.blocking_recv().expect("that it is watched is told");
        ["policies/a.yaml", "policies/b.yaml", "policies/c.yaml"].into_iter().for_each(|name| top.write(name));
        changes.blocking_recv().expect("the change is told");
        fs::remove_file(top.path("policies/a.yaml")).expect("file can be removed");
        changes.blocking_recv().expect("the removal is told");
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn a_directory_that_is_missing_or_made_anew_is_watched_once_it_is_there() {
        let top = Top::new("missing");
        let mut place = top.place();
        assert!(!place.settle());
        for _ in 0..3 {
            top.make("policies");
            assert!(place.settle() && !place.settle());
            top.write("policies/a.yaml");
            assert!(told(&mut place) && !place.settle());
            fs::remove_dir_all(top.path("policies")).expect("directory can be removed");
            // At the next look there is another already, perhaps with the same inode.
            top.make("policies");
            assert!(told(&mut place) && place.settle());
            fs::remove_dir_all(top.path("policies")).expect("directory can be removed");
            assert!(told(&mut place) && place.settle() && !place.settle());
        }
        assert_eq!(place.trouble.why(), None);
    }

    #[test]
    fn another_directory_in_its_place_is_watched_and_the_first_is_not() {
        let top = Top::new("replaced");
        ["policies", "other"].into_iter().for_each(|name| top.make(name));
        let mut place = top.place();
        assert!(place.settle() && !told(&mut place));
        top.rename("policies", "old");
        assert!(told(&mut place));
        top.rename("other", "policies");
        assert!(place.settle() && !place.settle());
        while told(&mut place) {}
        top.write("old/a.yaml");
        assert!(!told(&mut place) && !place.settle());
        top.write("policies/a.yaml");
        assert!(told(&mut place));
    }

    #[test]
    fn a_link_that_is_turned_is_followed_and_so_is_one_in_the_directory() {
        let top = Top::new("links");
        ["first", "second"].into_iter().for_each(|name| top.make(name));
        top.turn("policies", "first");
        let mut place = top.place();
        assert!(place.settle());
        top.turn("policies", "second");
        assert!(place.settle());
        while told(&mut place) {}
        // As the config map of a cluster is mounted, and replaced.
        ["second/..1", "second/..2"].into_iter().for_each(|name| top.make(name));
        top.turn("second/..data", "..1");
        symlink("..data/a.yaml", top.path("second/a.yaml")).expect("link can be made");
        assert!(told(&mut place));
        top.turn("second/..data", "..2");
        assert!(told(&mut place) && !place.settle());
    }

    #[test]
    fn what_is_no_directory_is_a_trouble_until_it_is_one() {
        let top = Top::new("file");
        top.write("policies");
        let mut place = top.place();
        assert!(place.settle() && !place.settle());
        assert!(place.trouble.why().is_some_and(|why| why.contains("policies can't be watched")));
        fs::remove_file(top.path("policies")).expect("file can be removed");
        top.make("policies");
        assert!(place.settle() && place.trouble.why().is_none());
    }
}
