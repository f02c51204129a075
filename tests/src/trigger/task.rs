//! Steps on other processes.

use std::os::fd::AsRawFd;

use super::sys::{Done, F_SETSIG, check, descriptor, pipe};

const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// `struct clone_args` up to the cgroup (`include/uapi/linux/sched.h`).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

// `include/uapi/asm-generic/fcntl.h`, `include/uapi/asm-generic/sockios.h`
const F_SETOWN_EX: i32 = 15;
const F_OWNER_PID: i32 = 1;
const FIOSETOWN: libc::Ioctl = 0x8901;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    // A child that waits for its end; the value is its process id.
    ("spawn", |_, _| {
        // SAFETY: this process has one thread; the child waits and ends with its parent.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: takes numbers.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
        check(pid)
    }),
    // A child that a signal ends for which the kernel leaves a core; the value is 1 if it did.
    ("crash", |_, _| {
        // SAFETY: this process has one thread; the child does nothing but end.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: takes nothing.
            unsafe { libc::abort() };
        }
        let mut status = 0;
        // SAFETY: a number to write to.
        check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
        Ok(i64::from(libc::WCOREDUMP(status)))
    }),
    // SAFETY: takes numbers. Gives the task credentials of its own, the same as before.
    ("new-credentials", |_, _| check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0) })),
    // Who gets the signals about a pipe.
    ("set-owner", |_, words| {
        let (pipe, _) = pipe()?;
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETOWN, words.number(1) as i32) })
    }),
    // A signal of one's choice, about a pipe that something is written into.
    ("signal-by-file", |_, words| {
        let (from, to) = pipe()?;
        // SAFETY: takes numbers, and one byte.
        unsafe {
            check(libc::fcntl(from.as_raw_fd(), libc::F_SETOWN, words.number(1) as i32))?;
            check(libc::fcntl(from.as_raw_fd(), F_SETSIG, words.number(2) as i32))?;
            check(libc::fcntl(from.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC))?;
            check(libc::write(to.as_raw_fd(), b"x".as_ptr().cast(), 1) as i64).map(|_| 0)
        }
    }),
    // A socket that is kept, with an owner of its signals; 0 for none.
    ("hold-owned", |held, words| {
        // SAFETY: takes numbers.
        let socket = descriptor(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
        if words.number(2) != 0 {
            // SAFETY: takes numbers.
            check(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETOWN, words.number(2) as i32) })?;
        }
        held.keep(words, 1, socket);
        Ok(0)
    }),
    ("set-own-owner", |_, _| {
        let (pipe, _) = pipe()?;
        // SAFETY: takes numbers.
        check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETOWN, libc::getpid()) })
    }),
    ("set-owner-ex", |_, words| {
        // struct f_owner_ex { int type; int pid }
        let owner = [F_OWNER_PID, words.number(1) as i32];
        let (pipe, _) = pipe()?;
        // SAFETY: two numbers, as the call takes them.
        check(unsafe { libc::fcntl(pipe.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) })
    }),
    ("set-owner-ioctl", |_, words| {
        let owner = words.number(1) as i32;
        // SAFETY: takes numbers.
        let socket = descriptor(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: a number of four bytes.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), FIOSETOWN, &raw const owner) })
    }),
    ("type-into", |held, words| {
        let terminal = held.get(words, 1)?;
        // SAFETY: one byte.
        check(unsafe { libc::ioctl(terminal, libc::TIOCSTI, b"x".as_ptr()) })
    }),
    ("reap", |_, words| {
        let mut status = 0;
        // SAFETY: a number to write to.
        check(unsafe { libc::waitpid(words.number(1) as i32, &raw mut status, 0) })?;
        Ok(if libc::WIFSIGNALED(status) { libc::WTERMSIG(status).into() } else { 0 })
    }),
    // SAFETY: takes numbers.
    ("kill", |_, words| check(unsafe { libc::kill(words.number(1) as i32, words.number(2) as i32) })),
    // SAFETY: takes numbers.
    ("kill-self", |_, words| check(unsafe { libc::kill(libc::getpid(), words.number(1) as i32) })),
    ("kill-by-descriptor", |_, words| {
        // SAFETY: takes numbers.
        let target = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, words.number(1), 0) } as i32)?;
        let (none, number) = (std::ptr::null::<libc::siginfo_t>(), words.number(2));
        // SAFETY: no information about the signal is given.
        check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, target.as_raw_fd(), number, none, 0) })
    }),
    ("attach", |_, words| {
        let pid = words.number(1) as i32;
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: attaching takes numbers.
        check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) })?;
        // SAFETY: as above. The tracee runs, so it has to be stopped before it can be let go.
        unsafe {
            libc::ptrace(libc::PTRACE_INTERRUPT, pid, none, none);
            libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, pid, none, none);
        }
        Ok(0)
    }),
    // Asks the parent: of this process itself, or (of a child) this process.
    ("trace-me", |_, words| {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: takes numbers.
        let ask = move || unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) };
        if words.text(1) == "child" { super::power::in_child(ask) } else { check(ask()) }
    }),
    ("read-memory", |_, words| {
        let mut byte = 0_u8;
        // Both are the same program, and the stack of the other is no more than a guess: its environment is asked for.
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: the local piece is one byte; the remote one is in the other process.
        let read =
            unsafe { libc::process_vm_readv(words.number(1) as i32, &raw const local, 1, &raw const remote, 1, 0) };
        match check(read as i64) {
            // The right was given; that nothing is mapped there says no more.
            Err(libc::EFAULT) | Ok(_) => Ok(0),
            Err(errno) => Err(errno),
        }
    }),
    ("take-descriptor", |_, words| {
        // SAFETY: takes numbers.
        let target = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, words.number(1), 0) } as i32)?;
        // SAFETY: takes numbers.
        descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, target.as_raw_fd(), 0, 0) } as i32).map(|_| 0)
    }),
    ("compare", |_, words| {
        const KCMP_VM: i32 = 1;
        // SAFETY: takes numbers.
        check(unsafe { libc::syscall(libc::SYS_kcmp, libc::getpid(), words.number(1), KCMP_VM, 0, 0) }).map(|_| 0)
    }),
    ("clone-into", |_, words| {
        let flags = if words.text(2) == "path" { libc::O_PATH } else { libc::O_RDONLY };
        // SAFETY: the path ends with NUL.
        let cgroup = unsafe { libc::open(words.path(1).as_ptr(), flags | libc::O_DIRECTORY | libc::O_CLOEXEC) };
        let cgroup = descriptor(cgroup)?;
        clone_into(cgroup.as_raw_fd())
    }),
    ("clone-into-held", |held, words| clone_into(held.get(words, 1)?)),
    ("clone-sibling", |_, _| sibling()),
    // A child makes one whose parent we are.
    ("clone-sibling-in-child", |_, _| super::power::in_child(|| sibling().map_or(-1, |_| 0))),
    ("new-session", |_, _| {
        // Two forks and a session of its own: the grandchild is nobody's child. Its pid comes through a pipe.
        let (reader, writer) = pipe()?;
        // SAFETY: children only make calls and end.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::setsid();
                let grandchild = libc::fork();
                if grandchild == 0 {
                    libc::pause();
                    libc::_exit(0);
                }
                let bytes = i64::from(grandchild).to_ne_bytes();
                libc::write(writer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
                libc::_exit(0);
            }
            check(pid)?;
            drop(writer);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
            let mut bytes = [0_u8; 8];
            libc::read(reader.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len());
            Ok(i64::from_ne_bytes(bytes))
        }
    }),
];

/// A fork with these arguments: the child's number, and 0 in the child.
fn clone(args: &CloneArgs) -> Done {
    // SAFETY: the structure is as long as is said; none of the arguments that are given shares memory.
    check(unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<CloneArgs>()) })
}

/// A process with the parent of this one, which ends at once; its parent alone can wait for it.
fn sibling() -> Done {
    let pid = clone(&CloneArgs { flags: libc::CLONE_PARENT as u64, ..CloneArgs::default() })?;
    if pid == 0 {
        // SAFETY: runs nothing of the parent's.
        unsafe { libc::_exit(0) };
    }
    Ok(0)
}

fn clone_into(cgroup: i32) -> Done {
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup as u64,
        ..CloneArgs::default()
    };
    let pid = clone(&args)?;
    if pid == 0 {
        // SAFETY: runs nothing of the parent's.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: nothing is asked about how it ended.
    check(unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) })?;
    Ok(0)
}

/// A child that waits for its end, with this number in its own namespace.
pub fn pausing(number: Option<i32>) -> Result<i32, i32> {
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(number) = &number {
        // The first of the numbers is the one in its own namespace.
        (args.set_tid, args.set_tid_size) = (&raw const *number as u64, 1);
    }
    let child = clone(&args)?;
    if child == 0 {
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    }
    Ok(child as i32)
}
