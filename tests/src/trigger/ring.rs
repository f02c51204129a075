//! Steps through io_uring: the same operations, with no system call of their own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::network::{address, of_protocol};
use super::sys::{Done, check, descriptor, errno};

const OP_CONNECT: u8 = 16;
const OP_OPENAT: u8 = 18;
const OP_URING_CMD: u8 = 46;
/// `IORING_SETUP_SQPOLL`
const SETUP_SQPOLL: u32 = 1 << 1;
const ENTER_GETEVENTS: u32 = 1;
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

/// The part of `struct io_uring_sqe` that is used here.
#[repr(C)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    descriptor: i32,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    rest: [u64; 4],
}

/// The steps, by name. The last word of each is `worker` for a worker thread of the kernel.
pub const STEPS: &[super::Row] = &[
    ("ring-open", |_, words| {
        let path = words.path(1);
        let opened = submit(OP_OPENAT, words.text(2) == "worker", libc::AT_FDCWD, path.as_ptr() as u64, 0)?;
        descriptor(opened as i32).map(|_| 0)
    }),
    ("ring", |_, _| set_up(0)),
    ("ring-thread", |_, _| set_up(SETUP_SQPOLL)),
    // A command to the driver of a file; that of /dev/null takes all and does nothing.
    ("ring-command", |_, words| {
        // SAFETY: the path ends with NUL.
        let file = descriptor(unsafe { libc::open(words.path(1).as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
        submit(OP_URING_CMD, false, file.as_raw_fd(), 0, 0)
    }),
    ("ring-connect", |_, words| {
        let socket = of_protocol(&words.text(1), words.text(2).starts_with('['))?;
        let (name, length) = address(&words.text(2));
        let worker = words.text(3) == "worker";
        submit(OP_CONNECT, worker, socket.as_raw_fd(), (&raw const name) as u64, length.into())
    }),
];

/// A new ring; nothing is done with it.
fn set_up(flags: u32) -> Done {
    let mut params = Params::default();
    params.head[2] = flags;
    // SAFETY: the structure has the size that the kernel knows.
    descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) } as i32).map(|_| 0)
}

/// One operation through a ring of its own; what it gave.
fn submit(operation: u8, worker: bool, on: i32, address: u64, offset: u64) -> Done {
    let mut params = Params::default();
    // SAFETY: the structure has the size that the kernel knows.
    let ring = descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) } as i32)?;
    let (rings, entries) = (map(&ring, OFFSETS[0])?, map(&ring, OFFSETS[1])?);
    let flags = if worker { ASYNC } else { 0 };
    let entry = Entry {
        operation,
        flags,
        priority: 0,
        descriptor: on,
        offset,
        address,
        length: 0,
        operation_flags: 0,
        rest: [0; 4],
    };
    // SAFETY: both mappings are longer than what lies in them for one entry, at the places that the kernel gave, and
    // only this thread and the kernel use them. Both rings are one mapping since 5.4.
    unsafe {
        entries.cast::<Entry>().write(entry);
        let at = |offset: u32| rings.add(offset as usize).cast::<u32>();
        at(params.submission[6]).write(0);
        AtomicU32::from_ptr(at(params.submission[1])).store(1, Ordering::Release);
        let none = std::ptr::null::<libc::c_void>();
        check(libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, ENTER_GETEVENTS, none, 0))?;
        // struct io_uring_cqe: { u64 user_data; s32 res; u32 flags }
        let result = at(params.completion[5]).add(2).cast::<i32>().read_volatile();
        if result < 0 { Err(-result) } else { Ok(result.into()) }
    }
}

/// Maps a part of the ring. It stays mapped: a trigger does few of these.
fn map(ring: &OwnedFd, offset: i64) -> Result<*mut u8, i32> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    // SAFETY: a mapping at an address that the kernel chooses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), ROOM, protection, flags, ring.as_raw_fd(), offset) };
    if at == libc::MAP_FAILED { Err(errno()) } else { Ok(at.cast()) }
}
