//! Where an audit log lies: its directory, kept open, and its name there. Nobody but root leads us elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::lock;

/// Most links on the way; the kernel's own limit.
const LINKS: u32 = 40;

/// A directory and a name in it.
#[derive(Debug)]
pub struct Place {
    /// The path as it was given.
    pub path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// Goes to the directory of this path, and makes it (mode 0700) where it is missing. A symbolic link on the way is
    /// followed only where it is root's or our own: `/var/log` is one on some systems, and anybody else's could be turned.
    ///
    /// # Errors
    /// There is no such directory and none can be made; or a link is somebody else's.
    pub fn find(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let name = path.file_name().ok_or_else(|| io::Error::other("the path has no name of a file"))?.to_owned();
        let directory = walk(path.parent().unwrap_or(Path::new("/")))?;
        Ok(Self { path, directory, name })
    }

    /// Opens the file for adding, and makes it (mode 0600) where it is missing. The name is a single one, so not following
    /// a link here is all that `openat2` could refuse.
    ///
    /// # Errors
    /// It is a link, no plain file, has another name, or can be written by somebody else.
    pub fn open(&self) -> io::Result<File> {
        self.open_for(OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)
    }

    /// As [`Self::open`], or for reading alone where the file is there and its file system is read-only (`true`).
    ///
    /// # Errors
    /// As for [`Self::open`], or there is no such file and none can be made.
    pub fn open_or_read(&self) -> io::Result<(File, bool)> {
        match self.open() {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => match self.open_for(OFlags::RDONLY) {
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => Err(error),
                opened => Ok((opened?, true)),
            },
            opened => Ok((opened?, false)),
        }
    }

    fn open_for(&self, access: OFlags) -> io::Result<File> {
        // Not blocking, so that opening a pipe fails instead of waiting for a reader.
        let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.directory, &self.name, flags, Mode::RUSR | Mode::WUSR)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() > 1 {
            return Err(io::Error::other("not a plain file with one name"));
        }
        if !trusted(metadata.uid()) {
            let owner = metadata.uid();
            return Err(io::Error::other(format!("it belongs to user {owner}; move it away, or `chown root` it")));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other("others than its owner may write to it; `chmod go-w` it"));
        }
        Ok(file)
    }

    /// Gives the file another name, which nothing may have yet.
    ///
    /// # Errors
    /// There is such a file, or the directory can't be written.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(&self.directory, from, &self.directory, to, RenameFlags::NOREPLACE)?)
    }

    /// Removes a file of the directory.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// Removes the file again that was made here, where it still has the name and nothing is in it.
    ///
    /// # Errors
    /// It is not so, or the directory can't be written.
    pub fn unmake(&self, file: &File) -> io::Result<()> {
        let (made, named) =
            (file.metadata()?, rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?);
        if made.len() > 0 || (made.dev(), made.ino()) != (named.st_dev, named.st_ino) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.remove(&self.name)
    }

    /// Has the names in the directory on its disk.
    ///
    /// # Errors
    /// The disk can't be written.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    /// Locks the directory as long as this is kept; also where its file system is read-only.
    ///
    /// # Errors
    /// Another process has locked it, which is named, with what to do then.
    pub fn lock(&self, what_to_do: &str) -> io::Result<()> {
        lock::take(&self.directory, what_to_do)
    }

    /// Name of the file.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Name of the file, for records.
    pub fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

/// Whether what this user has may be relied on.
fn trusted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

fn walk(path: &Path) -> io::Result<OwnedFd> {
    let there = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: &OwnedFd, name: &OsStr| rustix::fs::openat(at, name, there, Mode::empty());
    let root = || rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut at = root()?;
    let mut rest = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let found = match open(&at, &name) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&at, &name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open(&at, &name)?
            }
            other => other?,
        };
        let stat = rustix::fs::fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => at = found,
            FileType::Symlink => {
                if !trusted(stat.st_uid) {
                    let (name, owner) = (name.display(), stat.st_uid);
                    let message = format!("the symbolic link {name} belongs to user {owner}, who could turn it");
                    return Err(io::Error::other(message + "; name the directory that it leads to"));
                }
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target =
                    PathBuf::from(OsString::from_vec(rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes()));
                if target.is_absolute() {
                    at = root()?;
                }
                rest.extend(names(&target));
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(rustix::fs::openat(&at, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect::<Vec<_>>().into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    #[test]
    fn links_pipes_and_second_names_are_refused() {
        let path = directory("links");
        let open = |name: &str| Place::find(&path.join(name)).and_then(|place| place.open());
        std::fs::write(path.join("plain"), "").expect("file can be made");
        open("plain").expect("a plain file is well");
        symlink("plain", path.join("link")).expect("link can be made");
        assert!(open("link").is_err());
        std::fs::hard_link(path.join("plain"), path.join("second")).expect("link can be made");
        assert!(open("second").is_err());
        assert!(Place::find(Path::new("/dev/null")).and_then(|place| place.open()).is_err());
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let path = directory("modes").join("log");
        std::fs::write(&path, "").expect("file can be made");
        for (mode, well) in [(0o600, true), (0o640, true), (0o644, true), (0o660, false), (0o602, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode can be set");
            assert_eq!(Place::find(&path).and_then(|place| place.open()).is_ok(), well, "{mode:o}");
        }
    }

    #[test]
    fn a_directory_behind_a_link_of_our_own_is_found_and_behind_somebody_elses_it_is_not() {
        let path = directory("parents");
        std::fs::create_dir(path.join("real")).expect("directory can be made");
        symlink("real", path.join("first")).expect("link can be made");
        symlink(path.join("first"), path.join("link")).expect("link can be made");
        let log = path.join("link/../first/new/audit.jsonl");
        Place::find(&log).and_then(|place| place.open()).expect("the links are our own");
        let made = std::fs::metadata(path.join("real/new")).expect("directory was made");
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
        symlink("loop", path.join("loop")).expect("link can be made");
        assert!(Place::find(&path.join("loop/audit.jsonl")).is_err());
        if rustix::process::geteuid().is_root() {
            lchown(path.join("first"), Some(12345), None).expect("root can give a link away");
            let error = Place::find(&log).expect_err("the link is somebody else's").to_string();
            assert!(error.contains("first belongs to user 12345"), "{error}");
        }
    }
}
