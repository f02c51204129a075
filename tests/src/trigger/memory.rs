//! Steps that make memory executable.

use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::{Done, check, descriptor};
use super::words::Words;

const PAGE: usize = 4096;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("map-exec", |_, words| map(Some(&file(words)?), libc::PROT_READ | libc::PROT_EXEC, libc::PROT_NONE)),
    ("map-then-exec", |_, words| map(Some(&file(words)?), libc::PROT_READ, libc::PROT_READ | libc::PROT_EXEC)),
    ("map-memory-exec", |_, _| map(None, libc::PROT_READ | libc::PROT_EXEC, libc::PROT_NONE)),
    ("map-memory-then-exec", |_, _| map(None, libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC)),
    ("map-memfd-exec", |_, _| {
        // SAFETY: the name ends with NUL.
        let memory = descriptor(unsafe { libc::memfd_create(c"code".as_ptr(), libc::MFD_CLOEXEC) })?;
        map(Some(&memory), libc::PROT_READ | libc::PROT_EXEC, libc::PROT_NONE)
    }),
    // The code of this program, which is executable already.
    ("own-code-writable", |_, _| {
        let page = (file as *const () as usize & !(PAGE - 1)) as *mut libc::c_void;
        // SAFETY: the page holds code, which stays readable and executable.
        let changed =
            check(unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) });
        // SAFETY: as above.
        unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) };
        changed
    }),
    ("map-write-exec", |_, words| {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        map(Some(&file(words)?), all, libc::PROT_NONE)
    }),
    ("map-write-then-exec", |_, words| written_then_executable(&file(words)?)),
    ("map-read", |_, words| map(Some(&file(words)?), libc::PROT_READ, libc::PROT_NONE)),
];

fn file(words: &Words) -> Result<OwnedFd, i32> {
    // SAFETY: the path ends with NUL.
    descriptor(unsafe { libc::open(words.path(1).as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
}

/// Maps a page of a file for this process alone, writes to it, and makes it executable.
fn written_then_executable(file: &OwnedFd) -> Done {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping at an address that the kernel chooses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if page == libc::MAP_FAILED {
        return Err(super::sys::errno());
    }
    // SAFETY: the page is ours, and the file is not empty.
    unsafe { page.cast::<u8>().write_volatile(0xc3) };
    // SAFETY: the page is ours, and nothing else uses it.
    let changed = check(unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) });
    // SAFETY: as above.
    unsafe { libc::munmap(page, PAGE) };
    changed
}

/// Maps a page, and changes its protection where `then` says so.
fn map(file: Option<&OwnedFd>, protection: i32, then: i32) -> Done {
    let flags = libc::MAP_PRIVATE | if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
    let descriptor = file.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: a mapping at an address that the kernel chooses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, descriptor, 0) };
    if page == libc::MAP_FAILED {
        return Err(super::sys::errno());
    }
    // SAFETY: the page is ours, and nothing else uses it.
    let changed = check(if then == libc::PROT_NONE { 0 } else { unsafe { libc::mprotect(page, PAGE, then) } });
    // SAFETY: as above.
    unsafe { libc::munmap(page, PAGE) };
    changed
}
