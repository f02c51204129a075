//! Going through a tree of cgroups. A cgroup is gone into only as long as its path leads to its id, and by directory
//! descriptors, so that neither the bytes of a name nor the depth of a tree hide anything.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::cgroup::{Cgroup, Hierarchy, gone, shown};

/// Longest path that is opened from a descriptor; below it another descriptor is kept. The kernel takes 4096 bytes with a
/// name of at most 255.
const STRIDE: usize = 3072;

/// Passes through a tree until somebody must be making cgroups in it without an end: all but the first find only what was
/// being made at one moment.
const PASSES: usize = 100;

/// A cgroup that is still to be gone into, with the directory from which its path is opened.
struct Next {
    from: Rc<OwnedFd>,
    path: PathBuf,
    cgroup: Cgroup,
}

impl Hierarchy {
    /// Goes to this cgroup and all below it. Each is visited first and its children are looked for after, so that what the
    /// kernel does for new children because of the visit leaves none out. One that is gone is not visited.
    ///
    /// # Errors
    /// A visit failed, or a directory can't be read.
    fn walk<E: From<io::Error>>(&self, top: &Cgroup, mut visit: impl FnMut(&Cgroup) -> Result<(), E>) -> Result<(), E> {
        let mut waiting = vec![self.first(top)?];
        while let Some(next) = waiting.pop() {
            let Some(directory) = open(&next)? else { continue };
            visit(&next.cgroup)?;
            let children = read(&directory, &next.cgroup)?;
            let long = next.path.as_os_str().len() > STRIDE;
            let (from, above) = if long { (Rc::new(directory), PathBuf::new()) } else { (next.from, next.path) };
            let below = |cgroup: Cgroup| Next { from: from.clone(), path: above.join(cgroup.name()), cgroup };
            waiting.extend(children.into_iter().map(below));
        }
        Ok(())
    }

    /// Changes every cgroup of the tree, also those that are made meanwhile: goes through it until a whole pass changes
    /// nothing. The kernel must make the same change to what is made in a cgroup that has it. `change` says whether there
    /// was anything to change.
    ///
    /// # Errors
    /// A change failed, a directory can't be read, or there is no end of new cgroups.
    pub fn settle<E: From<io::Error>>(
        &self,
        top: &Cgroup,
        mut change: impl FnMut(&Cgroup) -> Result<bool, E>,
    ) -> Result<(), E> {
        for _ in 0..PASSES {
            self.pass_new(top)?;
            let mut changed = false;
            self.walk(top, |cgroup| change(cgroup).map(|done| changed |= done))?;
            if !changed {
                return Ok(());
            }
        }
        let message = format!("cgroups are made below {} all the time; stop what makes them", shown(&top.path));
        Err(io::Error::new(ErrorKind::TimedOut, message).into())
    }

    /// Waits until every cgroup can be seen whose making has begun. The kernel makes one at a time, tells `cgroup_mkdir` of
    /// it, and only then lets it be seen: one that was told of before a change could come to light after a pass. Switching no
    /// controller takes the same lock, and does nothing.
    fn pass_new(&self, top: &Cgroup) -> io::Result<()> {
        match fs::write(self.directory(&top.path).join("cgroup.subtree_control"), "\n") {
            Err(error) if !gone(&error) => {
                let path = shown(&top.path);
                Err(io::Error::new(error.kind(), format!("cannot write cgroup.subtree_control of {path}: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// All cgroups below this one, parents before their children; none if it is gone.
    ///
    /// # Errors
    /// A directory can't be read.
    pub fn descendants(&self, top: &Cgroup) -> io::Result<Vec<Cgroup>> {
        let mut found = Vec::new();
        self.walk(top, |cgroup| {
            found.extend((cgroup.id != top.id).then(|| cgroup.clone()));
            io::Result::Ok(())
        })?;
        Ok(found)
    }

    /// The cgroups directly below this one; none if it is gone.
    ///
    /// # Errors
    /// Its directory can't be read.
    pub fn children(&self, cgroup: &Cgroup) -> io::Result<Vec<Cgroup>> {
        open(&self.first(cgroup)?)?.map_or(Ok(Vec::new()), |directory| read(&directory, cgroup))
    }

    fn first(&self, cgroup: &Cgroup) -> io::Result<Next> {
        let mount = openat(CWD, self.mount(), DIRECTORY, Mode::empty())?;
        let path = cgroup.path.strip_prefix("/").unwrap_or(&cgroup.path).to_owned();
        Ok(Next { from: Rc::new(mount), path, cgroup: cgroup.clone() })
    }
}

/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory of a cgroup; none if the cgroup is gone, also where another one has its path now.
fn open(next: &Next) -> io::Result<Option<OwnedFd>> {
    let path = if next.path.as_os_str().is_empty() { Path::new(".") } else { next.path.as_path() };
    let directory = match openat(&next.from, path, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
        Err(error) => return Err(unreadable(&next.cgroup, error)),
        Ok(directory) => directory,
    };
    Ok((fstat(&directory)?.st_ino == next.cgroup.id).then_some(directory))
}

/// The cgroups in a directory. One that is removed meanwhile has no more.
fn read(directory: &OwnedFd, parent: &Cgroup) -> io::Result<Vec<Cgroup>> {
    let mut found = Vec::new();
    let read = Dir::read_from(directory).and_then(|entries| {
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                let path = parent.path.join(OsStr::from_bytes(name));
                found.push(Cgroup { path, id: entry.ino() });
            }
        }
        Ok(())
    });
    match read {
        Err(error) if error != Errno::NOENT && error != Errno::NODEV => Err(unreadable(parent, error)),
        _ => Ok(found),
    }
}

fn unreadable(cgroup: &Cgroup, error: Errno) -> io::Error {
    let message = format!("cannot read the cgroup {}: {error}", shown(&cgroup.path));
    io::Error::new(io::Error::from(error).kind(), message)
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::tests::writable;
    use super::*;

    #[test]
    fn every_cgroup_of_a_tree_is_visited_before_its_children_are_looked_for() {
        let Some((hierarchy, top)) = writable() else { return };
        let name = top.join(OsStr::from_bytes(b"\xff"));
        hierarchy.make(&name).expect("any bytes are a name");
        let root = hierarchy.look_up(&top).expect("was made");
        let mut seen = Vec::new();
        let walked = hierarchy.walk(&root, |cgroup| {
            if seen.is_empty() {
                fs::create_dir(hierarchy.directory(top.join("late")))?;
            }
            seen.push(cgroup.path.clone());
            io::Result::Ok(())
        });
        walked.expect("can be read");
        seen.sort();
        assert_eq!(seen, [top.clone(), top.join("late"), name]);
        hierarchy.remove(&top).expect("can be removed");
    }

    #[test]
    fn a_tree_is_gone_through_until_a_pass_changes_nothing() {
        let Some((hierarchy, top)) = writable() else { return };
        hierarchy.make(top.join("a/b")).expect("can be made");
        let root = hierarchy.look_up(&top).expect("was made");
        let mut done = Vec::new();
        let settled = hierarchy.settle(&root, |cgroup| {
            if cgroup.path.ends_with("b") && done.len() == 2 {
                fs::create_dir(hierarchy.directory(top.join("late")))?;
            }
            let changed = !done.contains(&cgroup.path);
            done.extend(changed.then(|| cgroup.path.clone()));
            io::Result::Ok(changed)
        });
        settled.expect("ends");
        assert_eq!(done, [top.clone(), top.join("a"), top.join("a/b"), top.join("late")]);
        let endless = hierarchy.settle(&root, |_| io::Result::Ok(true));
        assert!(endless.is_err_and(|error| error.kind() == ErrorKind::TimedOut));
        hierarchy.remove(&top).expect("can be removed");
    }

    #[test]
    fn another_cgroup_at_the_same_path_is_not_taken_for_the_one_that_is_gone() {
        let Some((hierarchy, top)) = writable() else { return };
        let first = hierarchy.make(top.join("a")).expect("can be made");
        hierarchy.remove(&first.path).expect("can be removed");
        let second = hierarchy.make(top.join("a/b")).expect("can be made");
        assert_ne!(hierarchy.look_up(&first.path).expect("is there").id, first.id);
        assert!(hierarchy.descendants(&first).expect("can be read").is_empty());
        let top = hierarchy.look_up(&top).expect("is there");
        assert!(hierarchy.descendants(&top).expect("can be read").contains(&second));
        hierarchy.remove(&top.path).expect("can be removed");
    }

    #[test]
    fn no_depth_hides_a_cgroup() {
        let Some((hierarchy, top)) = writable() else { return };
        let mut path = top.clone();
        let flags = rustix::fs::OFlags::PATH;
        let mut open = vec![rustix::fs::open(hierarchy.directory(&top), flags, Mode::empty()).expect("is there")];
        let name = "n".repeat(200);
        // The kernel refuses such a path as a whole, so it is made level by level.
        for _ in 0..40 {
            let above = open.last().expect("there is one");
            rustix::fs::mkdirat(above, &name, Mode::from_raw_mode(0o755)).expect("can be made");
            open.push(rustix::fs::openat(above, &name, flags, Mode::empty()).expect("is there"));
            path.push(&name);
        }
        let top = hierarchy.look_up(&top).expect("was made");
        let found = hierarchy.descendants(&top).expect("can be read");
        assert_eq!(found.len(), 40);
        assert_eq!(found.last().map(|cgroup| &cgroup.path), Some(&path));
        open.pop();
        for above in open.iter().rev() {
            rustix::fs::unlinkat(above, &name, rustix::fs::AtFlags::REMOVEDIR).expect("can be removed");
        }
        hierarchy.remove(&top.path).expect("can be removed");
    }
}
