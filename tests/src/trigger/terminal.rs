//! Steps on terminals: those of a session's leader, which has jobs as a shell has them, and those of a command on its own.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::held::Held;
use super::sys::{Done, F_SETSIG, check, descriptor, errno};

/// `include/uapi/asm-generic/ioctls.h`: the device number of the terminal that is meant.
const TIOCGDEV: libc::Ioctl = 0x8004_5432;
/// Under this name the leader of a session holds its terminal.
const TERMINAL: &str = "terminal";

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    // SAFETY: takes a number.
    ("session-of", |_, words| check(unsafe { libc::getsid(words.number(1) as i32) })),
    // SAFETY: takes a number.
    ("group-of", |_, words| check(unsafe { libc::getpgid(words.number(1) as i32) })),
    // A new session with the terminal of this name.
    ("lead-terminal", |held, words| {
        // SAFETY: takes nothing; the path ends with NUL. The first terminal that a leader opens is its session's.
        let terminal = unsafe {
            check(libc::setsid())?;
            libc::open(words.path(1).as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)
        };
        held.descriptors.insert(TERMINAL.to_owned(), descriptor(terminal)?);
        foreground_at_will()?;
        Ok(0)
    }),
    // Starts a job in the `fg` or `bg`. Of input, output and error, one with a `t` is the terminal, one with a `p` a pipe
    // that somebody reads, any other null.
    ("job", |held, words| {
        let terminal = held.descriptors.get(TERMINAL).ok_or(libc::EBADF)?.try_clone().map_err(|_| libc::EMFILE)?;
        let mut arguments = words.0.iter().skip(3).map(|word| std::ffi::OsString::from_vec(word.clone()));
        let mut command = Command::new(arguments.next().ok_or(libc::EINVAL)?);
        let mut which = words.text(2).into_bytes().into_iter().map(|letter| match letter {
            b't' => terminal.try_clone().map_or(Stdio::null(), Stdio::from),
            b'p' => Stdio::piped(),
            _ => Stdio::null(),
        });
        let mut next = || which.next().unwrap_or(Stdio::null());
        command.args(arguments).stdin(next()).stdout(next()).stderr(next()).process_group(0);
        let mut child = command.spawn().map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))?;
        // A job that writes must find a reader; nothing that is written here is looked at.
        if let Some(output) = child.stdout.take() {
            held.descriptors.insert("output".to_owned(), output.into());
        }
        if words.text(1) == "fg" {
            // SAFETY: takes numbers.
            check(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), child.id().cast_signed()) })?;
        }
        Ok(child.id().into())
    }),
    // The other end of a terminal that is held, with flags that the call passes on; 32 is the kernel's own for an exec.
    ("peer-of", |held, words| {
        let (terminal, flags) = (held.get(words, 1)?, libc::O_RDWR | libc::O_NOCTTY | words.number(2) as i32);
        // SAFETY: takes numbers, and one that lives during the call.
        unsafe {
            let locked = 0;
            check(libc::ioctl(terminal, libc::TIOCSPTLCK, &raw const locked))?;
            descriptor(libc::ioctl(terminal, libc::TIOCGPTPEER, flags)).map(|_| 0)
        }
    }),
    // Waits for the end of a job or for its stop, as a shell does: its status, 1000 and the signal that ended it, or 2000
    // and the signal that stopped it.
    ("job-wait", |held, words| {
        let (terminal, mut status) = (terminal(held)?, 0);
        // SAFETY: a number to write to.
        check(unsafe { libc::waitpid(words.number(1) as i32, &raw mut status, libc::WUNTRACED) })?;
        // SAFETY: takes numbers.
        check(unsafe { libc::tcsetpgrp(terminal, libc::getpgrp()) })?;
        Ok(i64::from(match status {
            status if libc::WIFSTOPPED(status) => 2000 + libc::WSTOPSIG(status),
            status if libc::WIFSIGNALED(status) => 1000 + libc::WTERMSIG(status),
            status => libc::WEXITSTATUS(status),
        }))
    }),
    ("job-continue", |held, words| {
        let (terminal, job) = (terminal(held)?, words.number(1) as i32);
        // SAFETY: takes numbers.
        unsafe {
            check(libc::tcsetpgrp(terminal, job))?;
            check(libc::kill(-job, libc::SIGCONT))
        }
    }),
    // What the terminal's user types: the length of a line.
    ("read-terminal", |held, _| read_line(terminal(held)?)),
    // What follows are steps of a command, whose input is its terminal: 1 where input, output and error are the terminal
    // that `/dev/tty` means.
    ("has-terminal", |_, _| {
        let own = open(c"/dev/tty")?;
        let meant = device(own.as_raw_fd())?;
        let same = |number| Ok::<_, i32>(device(number)? == meant);
        Ok(i64::from(same(0)? && same(1)? && same(2)?))
    }),
    // A thousand for each row, and the columns.
    ("window-size", |_, _| {
        // SAFETY: numbers, to be written.
        let mut size: libc::winsize = unsafe { std::mem::zeroed() };
        // SAFETY: as long as the call takes it.
        check(unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) })?;
        Ok(i64::from(size.ws_row) * 1000 + i64::from(size.ws_col))
    }),
    // Says `!`, and then says so many bytes as they come.
    ("echo-bytes", |_, words| {
        let before = settings()?;
        let mut raw = before;
        // SAFETY: a structure of that kind.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        set(&raw)?;
        let echoed = echo(words.number(1));
        set(&before)?;
        echoed
    }),
    // Has the kernel send this signal to the terminal's foreground when something is typed.
    ("signal-from-terminal", |_, words| {
        // SAFETY: takes numbers.
        unsafe {
            check(libc::fcntl(0, F_SETSIG, words.number(1) as i32))?;
            let flags = libc::fcntl(0, libc::F_GETFL);
            check(libc::fcntl(0, libc::F_SETFL, flags | libc::O_ASYNC))
        }
    }),
    ("foreground", |_, words| {
        foreground_at_will()?;
        // SAFETY: takes numbers.
        check(unsafe { libc::tcsetpgrp(0, words.number(1) as i32) })
    }),
    ("read-input", |_, _| read_line(0)),
    // Takes the foreground and reads a line: its length.
    ("take-and-read", |_, _| {
        foreground_at_will()?;
        // SAFETY: takes numbers.
        check(unsafe { libc::tcsetpgrp(0, libc::getpgrp()) })?;
        read_line(0)
    }),
    // Gives a child the foreground and reads: the kernel stops the whole group of who reads.
    ("read-from-behind", |_, _| {
        foreground_at_will()?;
        // SAFETY: this process has one thread; the child waits and ends with its parent.
        let child = check(unsafe { libc::fork() })? as i32;
        if child == 0 {
            // SAFETY: takes numbers.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
        // SAFETY: takes numbers.
        unsafe {
            check(libc::setpgid(child, child))?;
            check(libc::tcsetpgrp(0, child))?;
        }
        let read = read_line(0);
        // SAFETY: takes numbers.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
            check(libc::tcsetpgrp(0, libc::getpgrp()))?;
        }
        read
    }),
    // Has a child read from behind in the group of this process's parent, which the kernel stops for that: 1 where the child
    // was stopped.
    ("read-in-group-of-parent", |_, _| {
        // SAFETY: takes numbers.
        let group = check(unsafe { libc::getpgid(libc::getppid()) })? as i32;
        // SAFETY: this process has one thread; the child ends with its parent, or before.
        let child = check(unsafe { libc::fork() })? as i32;
        if child == 0 {
            // SAFETY: takes numbers, and a buffer that lives during the call.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::signal(libc::SIGTTIN, libc::SIG_DFL);
                if libc::setpgid(0, group) == 0 {
                    libc::read(0, [0_u8; 1].as_mut_ptr().cast(), 1);
                }
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: takes numbers, one of them to write to.
        unsafe {
            check(libc::waitpid(child, &raw mut status, libc::WUNTRACED))?;
            libc::kill(child, libc::SIGKILL);
            if libc::WIFSTOPPED(status) {
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        }
        Ok(i64::from(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTTIN))
    }),
];

/// The terminal of the session that this process leads.
fn terminal(held: &Held) -> Result<i32, i32> {
    held.descriptors.get(TERMINAL).map(AsRawFd::as_raw_fd).ok_or(libc::EBADF)
}

/// From here on the foreground is changed from the background, too.
fn foreground_at_will() -> Done {
    // SAFETY: a set of that kind, filled before it is used.
    check(unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTTOU);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    })
}

fn open(path: &CStr) -> Result<OwnedFd, i32> {
    // SAFETY: the path ends with NUL.
    descriptor(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOCTTY) })
}

fn device(terminal: i32) -> Result<u32, i32> {
    let mut device = 0_u32;
    // SAFETY: a number to write to.
    check(unsafe { libc::ioctl(terminal, TIOCGDEV, &raw mut device) })?;
    Ok(device)
}

fn settings() -> Result<libc::termios, i32> {
    // SAFETY: numbers, to be written.
    let mut found: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: a structure of that kind.
    check(unsafe { libc::tcgetattr(0, &raw mut found) })?;
    Ok(found)
}

fn set(settings: &libc::termios) -> Done {
    // SAFETY: a structure of that kind.
    check(unsafe { libc::tcsetattr(0, libc::TCSADRAIN, settings) })
}

fn read_line(terminal: i32) -> Done {
    let mut bytes = [0_u8; 256];
    // SAFETY: as much room as is said.
    check(unsafe { libc::read(terminal, bytes.as_mut_ptr().cast(), bytes.len()) } as i64)
}

/// Past the buffers of standard input and output.
fn echo(length: i64) -> Done {
    // SAFETY: never closed by this value.
    let mut terminal = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(0) });
    let failed = |error: std::io::Error| error.raw_os_error().unwrap_or_else(errno);
    terminal.write_all(b"!").map_err(failed)?;
    let (mut left, mut bytes) = (length, [0_u8; 4096]);
    while left > 0 {
        let read = terminal.read(&mut bytes).map_err(failed)?;
        terminal.write_all(bytes.get(..read).unwrap_or_default()).map_err(failed)?;
        left -= read as i64;
    }
    Ok(length)
}
