//! The terminal of who started `run`: found, made raw while what is typed goes to the command, and given back as it was.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

use crate::cmd::standard;

/// What a terminal has to be given back, while it is raw. A static, because a panic ends the program without a drop.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The user's terminal.
pub struct Terminal {
    /// Which standard descriptors are one.
    pub standard: [bool; 3],
    /// What is typed.
    pub input: OwnedFd,
    /// What is shown.
    pub output: OwnedFd,
}

impl Terminal {
    /// The terminal that standard descriptors are; none where none is.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn find() -> Result<Option<Self>> {
        let found = [0, 1, 2].map(|number| isatty(standard(number)));
        let first = |order: [u8; 3]| order.into_iter().find(|number| found[usize::from(*number)]);
        let (Some(input), Some(output)) = (first([0, 1, 2]), first([1, 2, 0])) else { return Ok(None) };
        let (input, output) = (reopen(input, OFlags::RDONLY)?, reopen(output, OFlags::WRONLY)?);
        Ok(Some(Self { standard: found, input, output }))
    }

    /// Whether the command gets what is typed only when it asks: it has other input, or there is another program behind it
    /// that may read from the terminal, as `less` does in `run ... | less`.
    pub fn is_left_to_others(&self) -> bool {
        let behind = || fstat(standard(1)).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo);
        !self.standard[0] || behind()
    }

    /// Whether it makes lines of what is typed: nobody has made it raw.
    pub fn makes_lines(&self) -> bool {
        tcgetattr(&self.input).is_ok_and(|settings| settings.local_modes.contains(LocalModes::ICANON))
    }

    /// Whether we may read from it and change it.
    pub fn is_in_foreground(&self) -> bool {
        is_in_foreground(&self.input)
    }

    /// Makes it raw: the command's own terminal makes signals and lines of what is typed. Where it is raw, nothing
    /// changes.
    ///
    /// # Errors
    /// Its settings can't be had or changed.
    pub fn make_raw(&self) -> Result<()> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        // Where we were stopped from outside, it may be raw still: what was found first counts.
        let before = match saved.take() {
            Some((_, before)) => before,
            None => tcgetattr(&self.input).context("cannot read the terminal's settings")?,
        };
        let mut raw = before.clone();
        raw.make_raw();
        if !(self.standard[0] && self.standard[1]) {
            // Others may write lines to it.
            raw.output_modes = before.output_modes;
        }
        *saved = Some((self.input.try_clone().context("cannot copy a descriptor")?, before));
        tcsetattr(&self.input, OptionalActions::Now, &raw).context("cannot change the terminal's settings")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its settings back, where it is raw.
pub fn restore() {
    // Not waited for: a panic may come from where it is held.
    let Ok(mut saved) = SAVED.try_lock() else { return };
    if let Some((terminal, settings)) = saved.take()
        // From the background it would stop us; then a shell has its own settings there.
        && is_in_foreground(&terminal)
    {
        // It may be gone.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &settings);
    }
}

/// Whether we are in the foreground of this terminal. One that is not our session's has none.
pub fn is_in_foreground(terminal: &impl AsFd) -> bool {
    match tcgetpgrp(terminal) {
        Ok(group) => group == getpgrp(),
        Err(error) => error == Errno::NOTTY,
    }
}

/// Opens a standard descriptor's terminal again: others have the same open file, which must not become non-blocking for them.
fn reopen(number: u8, flags: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{number}");
    let opened = open(&path, flags | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    opened.with_context(|| {
        format!("cannot open the terminal that is descriptor {number} of run; give it pipes or files instead")
    })
}
