//! A terminal that a user sits at: a pseudo-terminal whose other side types and reads, and the leader of its session, which
//! has jobs as a shell has them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::process::{Process, Step};
use super::wait::{limit, ready};
use crate::trigger::words;

/// A terminal with a session.
#[derive(Debug)]
pub struct Terminal {
    user: File,
    /// The leader of the session; no agent.
    pub leader: Process,
    /// What was shown and not yet looked for.
    shown: Vec<u8>,
}

impl Terminal {
    /// Makes one. It echoes nothing and shows what is written as it is, so that each byte can be told.
    pub fn make() -> Result<Self> {
        // SAFETY: takes numbers.
        let user = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
        ensure!(user >= 0, "make a terminal: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given it to us.
        let user = unsafe { File::from_raw_fd(user) };
        let mut name = [0_u8; 64];
        // SAFETY: as much room as is said; the name ends with NUL.
        let named = unsafe {
            libc::unlockpt(user.as_raw_fd());
            libc::ptsname_r(user.as_raw_fd(), name.as_mut_ptr().cast(), name.len())
        };
        ensure!(named == 0, "the terminal has no name");
        let name = std::ffi::CStr::from_bytes_until_nul(&name)?.to_str()?;
        let mut leader = Process::start()?;
        leader.works(&crate::step!("lead-terminal", name), "lead a session")?;
        let terminal = Self { user, leader, shown: Vec::new() };
        terminal.change(|settings| {
            settings.c_lflag &= !(libc::ECHO | libc::ECHONL);
            settings.c_oflag &= !libc::OPOST;
        })?;
        Ok(terminal)
    }

    /// Changes its settings, as a program does that uses it.
    pub fn change(&self, change: impl FnOnce(&mut libc::termios)) -> Result<()> {
        let mut settings = self.read_settings()?;
        change(&mut settings);
        // SAFETY: a structure of that kind.
        let set = unsafe { libc::tcsetattr(self.user.as_raw_fd(), libc::TCSANOW, &raw const settings) };
        ensure!(set == 0, "change the terminal's settings: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Its settings, to be compared.
    pub fn settings(&self) -> Result<(Vec<u32>, Vec<u8>)> {
        let found = self.read_settings()?;
        Ok((vec![found.c_iflag, found.c_oflag, found.c_cflag, found.c_lflag], found.c_cc.to_vec()))
    }

    fn read_settings(&self) -> Result<libc::termios> {
        // SAFETY: numbers, to be written.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: a structure of that kind.
        let got = unsafe { libc::tcgetattr(self.user.as_raw_fd(), &raw mut settings) };
        ensure!(got == 0, "read the terminal's settings: {}", std::io::Error::last_os_error());
        Ok(settings)
    }

    /// Whether it makes lines and signals of what is typed.
    pub fn is_cooked(&self) -> Result<bool> {
        let flags = self.read_settings()?.c_lflag;
        Ok(flags & libc::ICANON != 0 && flags & libc::ISIG != 0)
    }

    /// The process group in its foreground.
    pub fn foreground(&self) -> i64 {
        // SAFETY: takes a number.
        unsafe { libc::tcgetpgrp(self.user.as_raw_fd()) }.into()
    }

    /// Gives it this size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: a structure of that kind.
        ensure!(unsafe { libc::ioctl(self.user.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } == 0);
        Ok(())
    }

    /// Types these bytes, as the user.
    pub fn types(&mut self, bytes: &[u8]) -> Result<()> {
        self.user.write_all(bytes).context("type")
    }

    /// Waits until a command is there that does steps; without a daemon that takes long.
    pub fn wait_served(&mut self) -> Result<()> {
        let deadline = Instant::now() + 6 * limit();
        self.types(b"nothing\n")?;
        self.shows_until(b"nothing 0 0\n", deadline).map(drop)
    }

    /// Waits until this was shown, and takes it away with all that was before it.
    pub fn shows(&mut self, wanted: &[u8]) -> Result<Vec<u8>> {
        self.shows_until(wanted, Instant::now() + limit())
    }

    fn shows_until(&mut self, wanted: &[u8], deadline: Instant) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.shown.windows(wanted.len()).position(|found| found == wanted) {
                return Ok(self.shown.drain(..at + wanted.len()).collect());
            }
            let text = String::from_utf8_lossy(&self.shown);
            ensure!(ready(self.user.as_fd(), libc::POLLIN, deadline), "{wanted:?} is not shown, but {text:?}");
            let mut bytes = [0; 4096];
            match self.user.read(&mut bytes) {
                Ok(length) => self.shown.extend(bytes.get(..length).unwrap_or_default()),
                Err(error) => {
                    bail!("nobody has the terminal any more ({error}); {wanted:?} was not shown, but {text:?}")
                }
            }
        }
    }

    /// Takes away what was shown until now.
    pub fn take_shown(&mut self) -> Result<String> {
        let now = Instant::now();
        while ready(self.user.as_fd(), libc::POLLIN, now) {
            let mut bytes = [0; 4096];
            let length = self.user.read(&mut bytes).context("look at the terminal")?;
            self.shown.extend(bytes.get(..length).unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.shown)).into_owned())
    }

    /// Has the trigger that reads here do a step that must work: its value.
    pub fn does(&mut self, step: &Step) -> Result<i64> {
        match self.tries(step)? {
            (0, value) => Ok(value),
            (errno, _) => bail!("{} gave errno {errno}", super::process::shown(step)),
        }
    }

    /// Has the trigger that reads here do a step: its errno and value.
    pub fn tries(&mut self, step: &Step) -> Result<(i32, i64)> {
        self.types(format!("{}\n", words::encode(step)).as_bytes())?;
        let name = String::from_utf8_lossy(&step[0]).into_owned();
        self.shows(format!("{name} ").as_bytes()).with_context(|| super::process::shown(step))?;
        let answer = self.shows(b"\n")?;
        let answer = String::from_utf8_lossy(&answer);
        let (errno, value) = answer.trim().split_once(' ').context("an answer has two numbers")?;
        Ok((errno.parse()?, value.parse()?))
    }
}
