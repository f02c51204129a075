//! Steps that execute something, each in a child: the errno of the call, or the exit status where it worked.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use super::held::Held;
use super::sys::{Done, check, descriptor, errno, pipe};
use super::words::Words;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("exec", |_, words| {
        let arguments: Vec<CString> = (1..words.0.len()).map(|index| words.path(index)).collect();
        child(|| execute(-1, &words.path(1), &arguments))
    }),
    // As another user, who is in no other group.
    ("exec-as", |_, words| {
        let (id, path) = (words.number(1) as u32, words.path(2));
        let arguments: Vec<CString> = (2..words.0.len()).map(|index| words.path(index)).collect();
        child(|| {
            // SAFETY: takes numbers; only the child changes who it is.
            let changed = unsafe {
                libc::setgroups(0, std::ptr::null()) == 0
                    && libc::setresgid(id, id, id) == 0
                    && libc::setresuid(id, id, id) == 0
            };
            if changed { execute(-1, &path, &arguments) } else { errno() }
        })
    }),
    // A program in anonymous memory.
    ("exec-memfd", |_, words| {
        // SAFETY: the name ends with NUL.
        let memory = descriptor(unsafe { libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC) })?;
        copy(&words.path(1), &memory)?;
        let again = reopened(&memory)?;
        drop(memory);
        child(|| execute(again.as_raw_fd(), c"", &[c"program".to_owned()]))
    }),
    // A program whose name is gone.
    ("exec-held", exec_held),
    ("exec-tmpfile", |_, words| {
        let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the path ends with NUL.
        let file = descriptor(unsafe { libc::open(words.path(2).as_ptr(), flags, 0o755) })?;
        copy(&words.path(1), &file)?;
        let again = reopened(&file)?;
        drop(file);
        child(|| execute(again.as_raw_fd(), c"", &[c"program".to_owned()]))
    }),
];

fn exec_held(held: &mut Held, words: &Words) -> Done {
    let file = held.get(words, 1)?;
    child(|| execute(file, c"", &[c"program".to_owned()]))
}

/// An O_PATH descriptor of the same file: no hook sees it opened, and it does not keep the file open for writing.
fn reopened(file: &OwnedFd) -> Result<OwnedFd, i32> {
    let name = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|_| libc::EINVAL)?;
    // SAFETY: the path ends with NUL.
    descriptor(unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) })
}

fn copy(from: &CString, to: &OwnedFd) -> Result<(), i32> {
    // SAFETY: the path ends with NUL.
    let from = descriptor(unsafe { libc::open(from.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    loop {
        let null = std::ptr::null_mut();
        // SAFETY: both descriptors are open.
        let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), null, 1 << 20) };
        if check(sent as i64)? == 0 {
            return Ok(());
        }
    }
}

fn execute(directory: i32, path: &std::ffi::CStr, arguments: &[CString]) -> i32 {
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment = [std::ptr::null::<libc::c_char>()];
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let directory = if directory < 0 { libc::AT_FDCWD } else { directory };
    // SAFETY: both lists end with a null pointer and all texts with NUL.
    unsafe {
        libc::syscall(libc::SYS_execveat, directory, path.as_ptr(), pointers.as_ptr(), environment.as_ptr(), flags);
    }
    errno()
}

/// Runs `execute` in a child, which comes back from it only with an errno. The value is the program's exit status, or
/// 1000 and the signal that ended it.
fn child(execute: impl FnOnce() -> i32) -> Done {
    let (reader, writer) = pipe()?;
    // SAFETY: this process has one thread; the child only executes, or writes and ends.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    if pid == 0 {
        let failed = execute();
        let bytes = failed.to_ne_bytes();
        // SAFETY: the bytes live during the call; `_exit` runs nothing of the parent's.
        unsafe {
            libc::write(writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
            libc::_exit(0);
        }
    }
    drop(writer);
    let mut bytes = [0_u8; 4];
    // SAFETY: the buffer is as long as is said.
    let length = unsafe { libc::read(reader.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    let mut status = 0;
    // SAFETY: a number to write to.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    if length > 0 {
        return Err(i32::from_ne_bytes(bytes));
    }
    if libc::WIFSIGNALED(status) {
        Ok(1000 + i64::from(libc::WTERMSIG(status)))
    } else {
        Ok(libc::WEXITSTATUS(status).into())
    }
}
