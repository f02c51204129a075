//! The command's own terminal: a pseudo-terminal with the settings and the size of the user's.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::terminal::Terminal;

/// Both sides of a pseudo-terminal.
pub struct Pty {
    /// The side that shows and types; reads and writes do not wait.
    pub ours: OwnedFd,
    /// The command's terminal.
    pub theirs: OwnedFd,
}

/// Makes a terminal like the user's.
///
/// # Errors
/// The system has no pseudo-terminals, or no more.
pub fn open(like: &Terminal) -> Result<Pty> {
    let none = "cannot make a terminal for the command; is devpts mounted on /dev/pts?";
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).context(none)?;
    unlockpt(&ours).context(none)?;
    // By our side and not by name: the name may lead into another mount.
    let theirs = ioctl_tiocgptpeer(&ours, flags).context(none)?;
    let flags = fcntl_getfl(&ours).context("cannot read a descriptor's flags")?;
    fcntl_setfl(&ours, flags | OFlags::NONBLOCK).context("cannot change a descriptor's flags")?;
    // Those of a terminal in whose background we are belong to the shell that reads there.
    if like.is_in_foreground() {
        let settings = tcgetattr(&like.input).context("cannot read the terminal's settings")?;
        tcsetattr(&theirs, OptionalActions::Now, &settings).context("cannot set the terminal of the command up")?;
    }
    copy_size(like, &ours);
    Ok(Pty { ours, theirs })
}

/// Gives the command's terminal the size of the user's. The kernel tells the command where that is another one.
pub fn copy_size(like: &Terminal, ours: &OwnedFd) {
    // A terminal without a size is used without one.
    let _ = tcgetwinsize(&like.output).and_then(|size| tcsetwinsize(ours, size));
}
