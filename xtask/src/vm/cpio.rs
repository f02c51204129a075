//! Writes archives of the kernel's initramfs format (cpio "newc"). Knows nothing of what is in them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive that is being written; all that is in it belongs to root.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    next_inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, next_inode: 1, directories: BTreeSet::new() }
    }

    /// Adds a directory and, where they are missing, those above it. Paths have no slash in front.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent, 0o755)?;
        }
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | mode, 0, &mut io::empty())
    }

    /// Adds a file with these bytes.
    pub fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, REGULAR | mode, content.len() as u64, &mut &content[..])
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.parent(path)?;
        self.entry(path, SYMLINK | 0o777, target.len() as u64, &mut target.as_bytes())
    }

    /// Adds a file or a directory of this machine with all below it. The permission bits are kept, the owner is not.
    pub fn copy(&mut self, from: &Path, path: &str) -> Result<()> {
        let meta = from.metadata().with_context(|| format!("read {}", from.display()))?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            self.directory(path, mode)?;
            let entries = fs::read_dir(from).with_context(|| format!("read {}", from.display()))?;
            let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
            names.sort();
            for name in names {
                self.copy(&from.join(&name), &format!("{path}/{}", name.to_string_lossy()))?;
            }
            return Ok(());
        }
        self.parent(path)?;
        let mut file = File::open(from).with_context(|| format!("open {}", from.display()))?;
        self.entry(path, REGULAR | mode, meta.size(), &mut file).with_context(|| format!("pack {}", from.display()))
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, 0, &mut io::empty())?;
        self.out.flush().context("write the end of the archive")
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(parent, _)| self.directory(parent, 0o755))
    }

    fn entry(&mut self, path: &str, mode: u32, size: u64, content: &mut dyn io::Read) -> Result<()> {
        let field =
            u32::try_from(size).with_context(|| format!("{path} has {size} bytes, more than an initramfs holds"))?;
        let name_size = path.len() as u32 + 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        // Inode, mode, uid, gid, links, time, size, four device numbers, size of the name, checksum (unused).
        let fields = [self.next_inode, mode, 0, 0, links, 0, field, 0, 0, 0, 0, name_size, 0];
        self.next_inode += 1;
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        write!(self.out, "070701{header}{path}\0").with_context(|| format!("write the entry of {path}"))?;
        self.pad(6 + 8 * fields.len() as u64 + u64::from(name_size))?;
        let copied = io::copy(&mut content.take(size), &mut self.out).with_context(|| format!("write {path}"))?;
        anyhow::ensure!(copied == size, "{path} became shorter while it was packed");
        self.pad(size)
    }

    fn pad(&mut self, written: u64) -> Result<()> {
        let missing = written.next_multiple_of(4) - written;
        self.out.write_all(&[0; 3][..missing as usize]).context("write padding")
    }
}

use std::io::Read as _;

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_parents_come_first() {
        let mut out = Vec::new();
        let mut archive = Archive::new(&mut out);
        archive.bytes("etc/hostname", 0o644, b"machine\n").expect("writing to memory works");
        archive.finish().expect("writing to memory works");
        assert_eq!(out.len() % 4, 0);
        let text = String::from_utf8_lossy(&out);
        let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(at("etc\0") < at("etc/hostname\0"));
        assert!(at("machine\n") < at("TRAILER!!!\0"));
        assert_eq!(text.matches("070701").count(), 3);
    }
}
