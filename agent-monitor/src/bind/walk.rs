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
    pub fn walk<E: From<io::Error>>(
        &self,
        top: &Cgroup,
        mut visit: impl FnMut(&Cgroup) -> Result<(), E>,
    ) -> Result<(), E> {
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

    /// Goes through the tree until a whole pass changes nothing: until this has been done to every cgroup of it, also to
    /// those that were made meanwhile. It must be such that the kernel does it to a cgroup that is made in one to which it
    /// was done. What is done says whether it changed anything.
    ///
    /// # Errors
    /// It could not be done, a directory can't be read, or there is no end of new cgroups.
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
        Err(error) => {
            let path = shown(&next.cgroup.path);
            return Err(io::Error::new(
                io::Error::from(error).kind(),
                format!("cannot read the cgroup {path}: {error}"),
            ));
        }
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
        Err(error) if error != Errno::NOENT && error != Errno::NODEV => {
            let path = shown(&parent.path);
            Err(io::Error::new(io::Error::from(error).kind(), format!("cannot read the cgroup {path}: {error}")))
        }
        _ => Ok(found),
    }
}
