//! Steps through io_uring: the same operations, with no system call of their own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::files::ATTRIBUTE;
use super::network::{address, towards};
use super::send::OneByte;
use super::sys::{Done, check, descriptor, errno, pipe};
use super::words::Words;

// `enum io_uring_op` (`include/uapi/linux/io_uring.h`)
const OP_SENDMSG: u8 = 9;
const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_SEND: u8 = 26;
const OP_RENAMEAT: u8 = 35;
const OP_UNLINKAT: u8 = 36;
const OP_MKDIRAT: u8 = 37;
const OP_SYMLINKAT: u8 = 38;
const OP_LINKAT: u8 = 39;
const OP_SETXATTR: u8 = 42;
const OP_SOCKET: u8 = 45;
const OP_URING_CMD: u8 = 46;
/// `IORING_SETUP_SQPOLL`
const SETUP_SQPOLL: u32 = 1 << 1;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 1 << 1;
/// Always done by a worker thread, and never at once by the caller.
const ASYNC: u8 = 1 << 4;
const OFFSETS: [i64; 2] = [0, 0x1000_0000];
const ROOM: usize = 4096;

/// `struct io_uring_params` (`include/uapi/linux/io_uring.h`): ten words, then the offsets in the two rings.
#[repr(C)]
#[derive(Default)]
struct Params {
    head: [u32; 10],
    submission: [u32; 10],
    completion: [u32; 10],
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    descriptor: i32,
    /// Also the second address.
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    user_data: u64,
    buffer: u32,
    /// Also, in its lower half, the length of an address.
    file_index: u32,
    third_address: u64,
    rest: u64,
}

/// The steps, by name. The last word of each is empty for an operation that the caller does, `worker` for one by a worker
/// thread of the kernel, `thread` for one that a thread of the kernel submits, too (`IORING_SETUP_SQPOLL`).
pub const STEPS: &[super::Row] = &[
    ("ring-open", |_, words| {
        let path = words.path(1);
        let entry = Entry { operation: OP_OPENAT, ..at(path.as_ptr()) };
        descriptor(submit(entry, &words.text(2))? as i32).map(|_| 0)
    }),
    // Opened by the caller itself, later, because the operation before has to wait; with other credentials than then.
    ("ring-open-later", |_, words| later(words)),
    ("ring", |_, _| set_up(0)),
    ("ring-thread", |_, _| set_up(SETUP_SQPOLL)),
    // A command to the driver of a file; that of /dev/null takes all and does nothing.
    ("ring-command", |_, words| {
        // SAFETY: the path ends with NUL.
        let file = descriptor(unsafe { libc::open(words.path(1).as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
        submit(Entry { operation: OP_URING_CMD, descriptor: file.as_raw_fd(), ..Entry::default() }, "")
    }),
    ("ring-connect", |_, words| {
        let socket = towards(&words.text(1), &words.text(2))?;
        let (name, length) = address(&words.text(2));
        let entry = Entry { offset: length.into(), ..on(OP_CONNECT, &socket, (&raw const name) as u64) };
        submit(entry, &words.text(3))
    }),
    ("ring-send", |_, words| {
        let socket = towards(&words.text(1), &words.text(2))?;
        let (name, length) = address(&words.text(2));
        let (to, byte) = ((&raw const name) as u64, b"x".as_ptr() as u64);
        let entry = Entry { offset: to, length: 1, file_index: length, ..on(OP_SEND, &socket, byte) };
        submit(entry, &words.text(3)).map(|_| 0)
    }),
    ("ring-sendmsg", |_, words| {
        let socket = towards(&words.text(1), &words.text(2))?;
        let mut byte = OneByte::to(&words.text(2));
        let message = byte.message();
        let entry = Entry { length: 1, ..on(OP_SENDMSG, &socket, (&raw const message) as u64) };
        submit(entry, &words.text(3)).map(|_| 0)
    }),
    ("ring-socket", |_, words| {
        let (family, kind) = (words.number(1) as i32, words.number(2) as u64 | libc::SOCK_CLOEXEC as u64);
        let entry = Entry { operation: OP_SOCKET, descriptor: family, offset: kind, ..Entry::default() };
        descriptor(submit(entry, &words.text(3))? as i32).map(|_| 0)
    }),
    ("ring-mkdir", |_, words| {
        let path = words.path(1);
        submit(Entry { operation: OP_MKDIRAT, length: 0o755, ..at(path.as_ptr()) }, &words.text(2))
    }),
    ("ring-unlink", |_, words| {
        let path = words.path(1);
        submit(Entry { operation: OP_UNLINKAT, ..at(path.as_ptr()) }, &words.text(2))
    }),
    ("ring-symlink", |_, words| two_names(words, OP_SYMLINKAT, 0)),
    ("ring-link", |_, words| two_names(words, OP_LINKAT, libc::AT_FDCWD as u32)),
    ("ring-rename", |_, words| two_names(words, OP_RENAMEAT, libc::AT_FDCWD as u32)),
    ("ring-setxattr", |_, words| {
        let path = words.path(1);
        let entry = Entry {
            operation: OP_SETXATTR,
            offset: b"1".as_ptr() as u64,
            address: ATTRIBUTE.as_ptr() as u64,
            length: 1,
            third_address: path.as_ptr() as u64,
            ..Entry::default()
        };
        submit(entry, &words.text(2))
    }),
];

/// An operation on a path.
fn at(path: *const libc::c_char) -> Entry {
    Entry { descriptor: libc::AT_FDCWD, address: path as u64, ..Entry::default() }
}

/// An operation on a descriptor.
fn on(operation: u8, descriptor: &OwnedFd, address: u64) -> Entry {
    Entry { operation, descriptor: descriptor.as_raw_fd(), address, ..Entry::default() }
}

/// An operation on two paths; the directory of the second one is in the length where the operation takes one.
fn two_names(words: &Words, operation: u8, directory: u32) -> Done {
    let (from, to) = (words.path(1), words.path(2));
    let entry = Entry { operation, offset: to.as_ptr() as u64, length: directory, ..at(from.as_ptr()) };
    submit(entry, &words.text(3))
}

/// A new ring; nothing is done with it.
fn set_up(flags: u32) -> Done {
    ring(1, flags).map(|_| 0)
}

fn ring(entries: u32, flags: u32) -> Result<(OwnedFd, Params), i32> {
    let mut params = Params::default();
    params.head[2] = flags;
    // SAFETY: the structure has the size that the kernel knows.
    let ring = descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) } as i32)?;
    Ok((ring, params))
}

/// One operation through a ring of its own; what it gave. The word says which thread does it, see [`STEPS`].
fn submit(mut entry: Entry, by: &str) -> Done {
    let (setup, flags, wake) = match by {
        "" => (0, 0, 0),
        "worker" => (0, ASYNC, 0),
        "thread" => (SETUP_SQPOLL, 0, ENTER_SQ_WAKEUP),
        _ => return Err(-1),
    };
    entry.flags = flags;
    let ring = Ring::new(&[entry], setup)?;
    ring.enter(1, 1, wake)?;
    ring.completed(0).1
}

/// Opens a file once a read from a pipe has ended, for which the caller has credentials of its own again.
fn later(words: &Words) -> Done {
    const OP_READ: u8 = 22;
    const DRAIN: u8 = 1 << 1;
    let (path, mut byte) = (words.path(1), [0_u8; 1]);
    let (from, to) = pipe()?;
    let read = Entry { length: 1, offset: u64::MAX, ..on(OP_READ, &from, byte.as_mut_ptr() as u64) };
    let open = Entry { operation: OP_OPENAT, flags: DRAIN, user_data: 1, ..at(path.as_ptr()) };
    let ring = Ring::new(&[read, open], 0)?;
    ring.enter(2, 0, 0)?;
    // SAFETY: takes numbers, and one byte.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0))?;
        check(libc::write(to.as_raw_fd(), b"x".as_ptr().cast(), 1) as i64)?;
    }
    ring.enter(0, 2, 0)?;
    let opened = [0, 1].map(|index| ring.completed(index)).into_iter().find(|(number, _)| *number == open.user_data);
    let (_, result) = opened.ok_or(libc::EIO)?;
    descriptor(result? as i32).map(|_| 0)
}

/// A ring with the operations that are to be submitted.
struct Ring {
    ring: OwnedFd,
    params: Params,
    /// Both rings, which are one mapping since 5.4.
    rings: Mapping,
    entries: Mapping,
}

impl Ring {
    fn new(operations: &[Entry], flags: u32) -> Result<Self, i32> {
        let (ring, params) = ring(operations.len() as u32, flags)?;
        let (rings, entries) = (Mapping::new(&ring, OFFSETS[0])?, Mapping::new(&ring, OFFSETS[1])?);
        let made = Self { ring, params, rings, entries };
        // SAFETY: both mappings are longer than what lies in them for a few entries, at the places that the kernel gave,
        // and only this thread and the kernel use them; the kernel's looks at the entries after the tail was stored.
        unsafe {
            for (index, operation) in operations.iter().enumerate() {
                made.entries.0.cast::<Entry>().add(index).write(*operation);
                made.at(made.params.submission[6]).add(index).write(index as u32);
            }
            AtomicU32::from_ptr(made.at(made.params.submission[1])).store(operations.len() as u32, Ordering::Release);
        }
        Ok(made)
    }

    /// Submits so many operations and waits for so many ends. What they point to must live until then.
    fn enter(&self, submit: u32, wait: u32, wake: u32) -> Done {
        let (flags, none) = (ENTER_GETEVENTS | wake, std::ptr::null::<libc::c_void>());
        // SAFETY: takes numbers; no set of signals is given.
        check(unsafe { libc::syscall(libc::SYS_io_uring_enter, self.ring.as_raw_fd(), submit, wait, flags, none, 0) })
    }

    /// The number of the operation that ended at this place, and what it gave.
    fn completed(&self, index: usize) -> (u64, Done) {
        // struct io_uring_cqe: { u64 user_data; s32 res; u32 flags }
        let entry = self.at(self.params.completion[5]).wrapping_add(4 * index);
        // SAFETY: as above; the kernel has written it, because so many ends were waited for.
        let (number, result) =
            unsafe { (entry.cast::<u64>().read_volatile(), entry.add(2).cast::<i32>().read_volatile()) };
        (number, if result < 0 { Err(-result) } else { Ok(result.into()) })
    }

    fn at(&self, offset: u32) -> *mut u32 {
        self.rings.0.wrapping_add(offset as usize).cast()
    }
}

/// A mapped part of a ring, which keeps the ring and its thread.
struct Mapping(*mut u8);

impl Mapping {
    fn new(ring: &OwnedFd, offset: i64) -> Result<Self, i32> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a mapping at an address that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), ROOM, protection, flags, ring.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(errno()) } else { Ok(Self(at.cast())) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nothing points into it any more.
        unsafe { libc::munmap(self.0.cast(), ROOM) };
    }
}
