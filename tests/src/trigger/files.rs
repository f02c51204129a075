//! Steps on files.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

use super::sys::{check, descriptor};
use super::words::Words;

/// An extended attribute that root may set on any file.
pub const ATTRIBUTE: &CStr = c"trusted.agent-monitor-test";
/// Where access lists are set.
const ACL: &CStr = c"system.posix_acl_access";

/// `include/uapi/linux/fs.h`.
const FS_IOC_SETFLAGS: libc::Ioctl = 0x4008_6602;
/// `include/uapi/linux/fcntl.h`: something is made in the directory.
const DN_CREATE: libc::c_int = 4;
/// From 6.17 on (`arch/x86/entry/syscalls/syscall_64.tbl`).
const SYS_FILE_SETATTR: libc::c_long = 469;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("open", |_, words| open(words, 1).map(|_| 0)),
    ("hold", |held, words| {
        let opened = open(words, 2)?;
        held.keep(words, 1, opened);
        Ok(0)
    }),
    ("close", |held, words| {
        held.descriptors.remove(&words.text(1));
        Ok(0)
    }),
    ("reopen", |held, words| {
        let name = format!("/proc/self/fd/{}", held.get(words, 1)?);
        let words = Words(vec![Vec::new(), name.into_bytes(), words.text(2).into_bytes()]);
        open(&words, 1).map(|_| 0)
    }),
    ("read", |held, words| {
        let mut buffer = [0_u8; 64];
        let file = held.get(words, 1)?;
        // SAFETY: the buffer is as long as is said.
        check(unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)
    }),
    ("write", |held, words| {
        let text = words.path(2);
        let file = held.get(words, 1)?;
        // SAFETY: the text is as long as is said.
        check(unsafe { libc::write(file, text.as_ptr().cast(), text.as_bytes().len()) } as i64)
    }),
    // SAFETY (all below): paths end with NUL and live during the call; everything else is numbers.
    ("mknod", |_, words| {
        let kind = match words.text(2).as_str() {
            "fifo" => libc::S_IFIFO,
            "socket" => libc::S_IFSOCK,
            _ => libc::S_IFREG,
        };
        // SAFETY: see above.
        check(unsafe { libc::mknod(words.path(1).as_ptr(), kind | 0o600, 0) })
    }),
    // SAFETY: see above.
    ("mkdir", |_, words| check(unsafe { libc::mkdir(words.path(1).as_ptr(), 0o755) })),
    // SAFETY: see above.
    ("symlink", |_, words| check(unsafe { libc::symlink(words.path(1).as_ptr(), words.path(2).as_ptr()) })),
    // SAFETY: see above.
    ("link", |_, words| check(unsafe { libc::link(words.path(1).as_ptr(), words.path(2).as_ptr()) })),
    ("link-held", |held, words| {
        let from = CString::new(format!("/proc/self/fd/{}", held.get(words, 1)?)).map_err(|_| libc::EINVAL)?;
        let (at, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
        // SAFETY: see above.
        check(unsafe { libc::linkat(at, from.as_ptr(), at, words.path(2).as_ptr(), follow) })
    }),
    // SAFETY: see above.
    ("unlink", |_, words| check(unsafe { libc::unlink(words.path(1).as_ptr()) })),
    // SAFETY: see above.
    ("rmdir", |_, words| check(unsafe { libc::rmdir(words.path(1).as_ptr()) })),
    ("rename", |_, words| {
        let flags = match words.text(3).as_str() {
            "exchange" => libc::RENAME_EXCHANGE,
            "noreplace" => libc::RENAME_NOREPLACE,
            "whiteout" => libc::RENAME_WHITEOUT,
            _ => 0,
        };
        let (from, to, at) = (words.path(1), words.path(2), libc::AT_FDCWD);
        // SAFETY: see above.
        check(unsafe { libc::syscall(libc::SYS_renameat2, at, from.as_ptr(), at, to.as_ptr(), flags) })
    }),
    // SAFETY: see above.
    ("truncate", |_, words| check(unsafe { libc::truncate(words.path(1).as_ptr(), words.number(2)) })),
    // SAFETY: see above.
    ("ftruncate", |held, words| check(unsafe { libc::ftruncate(held.get(words, 1)?, words.number(2)) })),
    // SAFETY: see above.
    ("chmod", |_, words| check(unsafe { libc::chmod(words.path(1).as_ptr(), words.number(2) as u32) })),
    // SAFETY: see above.
    ("fchmod", |held, words| check(unsafe { libc::fchmod(held.get(words, 1)?, words.number(2) as u32) })),
    ("chown", |_, words| {
        let owner = words.number(2) as u32;
        // SAFETY: see above.
        check(unsafe { libc::chown(words.path(1).as_ptr(), owner, owner) })
    }),
    ("lchown", |_, words| {
        let owner = words.number(2) as u32;
        // SAFETY: see above.
        check(unsafe { libc::lchown(words.path(1).as_ptr(), owner, owner) })
    }),
    ("utimes", |_, words| {
        // SAFETY: see above; no times stand for now.
        check(unsafe { libc::utimensat(libc::AT_FDCWD, words.path(1).as_ptr(), std::ptr::null(), 0) })
    }),
    ("futimes", |held, words| {
        let times = [libc::timespec { tv_sec: 1, tv_nsec: 0 }, libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT }];
        // SAFETY: see above; two times, as the call takes them.
        check(unsafe { libc::futimens(held.get(words, 1)?, times.as_ptr()) })
    }),
    ("setxattr", |_, words| {
        // SAFETY: see above; the value is one byte long.
        check(unsafe { libc::setxattr(words.path(1).as_ptr(), ATTRIBUTE.as_ptr(), b"1".as_ptr().cast(), 1, 0) })
    }),
    ("fsetxattr", |held, words| {
        // SAFETY: see above; the value is one byte long.
        check(unsafe { libc::fsetxattr(held.get(words, 1)?, ATTRIBUTE.as_ptr(), b"1".as_ptr().cast(), 1, 0) })
    }),
    // SAFETY: see above.
    ("removexattr", |_, words| check(unsafe { libc::removexattr(words.path(1).as_ptr(), ATTRIBUTE.as_ptr()) })),
    ("setacl", |_, words| {
        // An access list (`include/uapi/linux/posix_acl_xattr.h`): version 2; owner rw, uid 1 r, group, mask, others r.
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in
            [(1_u16, 6_u16, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)]
        {
            list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
        }
        // SAFETY: see above; the value is as long as is said.
        check(unsafe { libc::setxattr(words.path(1).as_ptr(), ACL.as_ptr(), list.as_ptr().cast(), list.len(), 0) })
    }),
    // SAFETY: see above.
    ("removeacl", |_, words| check(unsafe { libc::removexattr(words.path(1).as_ptr(), ACL.as_ptr()) })),
    // `pipe-hold READER WRITER`
    ("pipe-hold", |held, words| {
        let (reader, writer) = super::sys::pipe()?;
        held.keep(words, 1, reader);
        held.keep(words, 2, writer);
        Ok(0)
    }),
    // Takes the first bytes of a file, and leaves a hole.
    ("punch-hole", |held, words| {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes numbers.
        check(unsafe { libc::fallocate(held.get(words, 1)?, mode, 0, words.number(2)) })
    }),
    // `set-open-flags NAME [append]`: it blocks no more, and is written at its end, or not.
    ("set-open-flags", |held, words| {
        let append = if words.text(2) == "append" { libc::O_APPEND } else { 0 };
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(held.get(words, 1)?, libc::F_SETFL, libc::O_NONBLOCK | append) })
    }),
    ("lease", |held, words| {
        let file = held.get(words, 1)?;
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) })?;
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(file, libc::F_SETLEASE, libc::F_UNLCK) })
    }),
    // Signals about a directory.
    ("notify", |held, words| {
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(held.get(words, 1)?, libc::F_NOTIFY, DN_CREATE) })
    }),
    ("setflags", |held, words| {
        let flags = 0_i32;
        // SAFETY: see above; the argument is a number of four bytes.
        check(unsafe { libc::ioctl(held.get(words, 1)?, FS_IOC_SETFLAGS, &raw const flags) })
    }),
    ("file-setattr", |_, words| {
        // struct file_attr { u64 xflags; u32 extsize, nextents, projid, cowextsize }
        let attributes = [0_u64; 3];
        let (at, path) = (libc::AT_FDCWD, words.path(1));
        // SAFETY: see above; the attributes are as long as is said.
        check(unsafe { libc::syscall(SYS_FILE_SETATTR, at, path.as_ptr(), attributes.as_ptr(), 24_usize, 0) })
    }),
    ("chdir", |_, words| {
        // SAFETY: see above.
        check(unsafe { libc::chdir(words.path(1).as_ptr()) })
    }),
    // `flood NAME TRIES NAMES [FIRST]`: tries to make files NAME0, NAME1 and so on, so many different ones in turn, from
    // the one with number FIRST on. The value is how many tries were denied.
    ("flood", |_, words| {
        let (name, names, first) = (words.text(1), words.number(3).max(1), words.number(4));
        let denied = (0..words.number(2)).filter(|number| {
            let path = CString::new(format!("{name}{}", first + number % names)).expect("there is no NUL in it");
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
            // SAFETY: the path ends with NUL and lives during the call.
            descriptor(unsafe { libc::open(path.as_ptr(), flags, 0o644) }).err() == Some(libc::EACCES)
        });
        Ok(denied.count() as i64)
    }),
    ("list", |_, words| {
        let directory = open(words, 1)?;
        let mut buffer = [0_u8; 512];
        // SAFETY: the buffer is as long as is said.
        check(unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
    }),
];

/// Opens the path of a word with the flags of the next.
fn open(words: &Words, index: usize) -> Result<std::os::fd::OwnedFd, i32> {
    let mut flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    for word in words.text(index + 1).split(',') {
        flags |= match word {
            "w" => libc::O_WRONLY,
            "rw" => libc::O_RDWR,
            "3" => 3,
            "trunc" => libc::O_TRUNC,
            "creat" => libc::O_CREAT,
            "excl" => libc::O_EXCL,
            "append" => libc::O_APPEND,
            "path" => libc::O_PATH,
            "dir" => libc::O_DIRECTORY,
            "nofollow" => libc::O_NOFOLLOW,
            "tmpfile" => libc::O_TMPFILE,
            _ => 0,
        };
    }
    // SAFETY: the path ends with NUL and lives during the call.
    descriptor(unsafe { libc::open(words.path(index).as_ptr(), flags, 0o644) })
}
