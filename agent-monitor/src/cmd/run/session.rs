//! A command's session with a terminal of its own, seen from `run`: what is typed and shown, and when it stops.
//!
//! The command's parent (`tend`) is ordered by bytes: the number of a signal for the command, or [`TO_FOREGROUND`]. It tells
//! the command's process id in four bytes, and then two of what becomes of it: its exit status, or [`STOPPED`] and a signal.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{self, Receiver, Sender};
use tokio::process::{Child, Command};

use super::relay::{Input, Relay, Step};
use super::terminal::{Terminal, restore};
use super::{job, pty};
use crate::cli::RUN_FAILED;

/// The order to give the command the foreground of its terminal; no signal has this number.
pub const TO_FOREGROUND: u8 = 0;
/// Stands with the number of the signal that has stopped the command; no exit status has this bit.
pub const STOPPED: u16 = 0x100;

/// The session of a command.
pub struct Session {
    terminal: Terminal,
    /// Directory of the agent's cgroup.
    cgroup: PathBuf,
    relay: Relay,
    /// Our side of the command's terminal.
    ours: OwnedFd,
    orders: Sender,
    news: Receiver,
    /// The command gets what is typed while we are in the foreground.
    wants_input: bool,
    /// The command was given the foreground of its terminal.
    is_in_front: bool,
    /// The command has ended, or its parent.
    has_ended: bool,
    /// The signal by which we stop when all is shown.
    stopped_by: Option<Signal>,
}

/// What happens in a session.
pub enum Event {
    /// Bytes were passed on.
    Moved,
    /// All is shown that the command has written.
    AllShown,
    /// A line was typed that nobody but the command seems to wait for.
    Typed,
    /// The command was stopped.
    Stopped(Signal),
    /// It has ended, with this exit status.
    Ended(u8),
    /// Its parent has ended before it.
    Abandoned,
}

impl Session {
    /// Starts the leader by `command`, by it the command's parent, and by that `enter` with these options: the leader, the
    /// session, the command's process id.
    ///
    /// # Errors
    /// There is no terminal or no process for the command.
    pub async fn start(
        mut command: Command,
        enter: &[OsString],
        terminal: Terminal,
        cgroup: &Path,
    ) -> Result<(Child, Self, u32)> {
        let pty::Pty { ours, theirs } = pty::open(&terminal)?;
        let relay = Relay::new(copy(&terminal.input)?, copy(&terminal.output)?, copy(&ours)?);
        let relay = relay.context("cannot wait for the terminal")?;
        let (orders, obeyed) = pipe::pipe().context("cannot make a pipe")?;
        let (told, mut news) = pipe::pipe().context("cannot make a pipe")?;
        let obeyed = inherited(obeyed.into_blocking_fd())?;
        let told = inherited(told.into_blocking_fd())?;
        // Others ask for it by reading: see `follow`.
        let at_once = terminal.is_in_foreground() && !terminal.is_left_to_others();
        let first = terminal.standard.iter().position(|is_terminal| *is_terminal).unwrap_or_default().to_string();
        // What `lead` is told, and what it is to tell `tend`.
        command.arg("--terminal").arg(&first).arg("--");
        command.arg("--terminal").arg(&first).arg("--cgroup").arg(cgroup).args(at_once.then_some("--foreground"));
        command.arg("--orders").arg(obeyed.as_raw_fd().to_string()).arg("--news").arg(told.as_raw_fd().to_string());
        command.arg("--").args(enter);
        give_terminal(&mut command, terminal.standard, &theirs)?;
        let child = command.spawn().context("cannot start a process for the command")?;
        // Pipes and terminals end when nobody has them open.
        drop((command, theirs, obeyed, told));
        // None where one of them has failed, which has said why.
        let pid = news
            .read_u32()
            .await
            .ok()
            .filter(|pid| *pid != 0)
            .or(child.id())
            .context("the process for the command is gone")?;
        let mut session = Self {
            wants_input: !terminal.is_left_to_others(),
            terminal,
            cgroup: cgroup.to_owned(),
            relay,
            ours,
            orders,
            news,
            is_in_front: at_once,
            has_ended: false,
            stopped_by: None,
        };
        if at_once {
            session.take_terminal();
        } else {
            session.relay.input = session.unless_taken();
        }
        Ok((child, session, pid))
    }

    /// Waits for the next event. It can be given up without a loss.
    pub async fn next(&mut self) -> Event {
        let is_ours = || self.terminal.is_in_foreground() && self.terminal.makes_lines();
        tokio::select! {
            step = self.relay.step(is_ours) => match step {
                Step::Moved => Event::Moved,
                Step::AllShown => Event::AllShown,
                Step::Typed => Event::Typed,
            },
            // Both bytes were written at once, and so come at once.
            news = self.news.read_u16(), if !self.has_ended => match news {
                Ok(number) if number & STOPPED == 0 => Event::Ended(u8::try_from(number).unwrap_or(RUN_FAILED)),
                Ok(number) => Signal::from_named_raw((number & !STOPPED).into()).map_or(Event::Moved, Event::Stopped),
                Err(_) => Event::Abandoned,
            },
        }
    }

    /// Does what an event asks for.
    pub fn follow(&mut self, event: &Event) {
        match event {
            Event::Moved => {}
            Event::Ended(_) | Event::Abandoned => self.show_the_rest(),
            // Once: a command that goes into the background by itself must not keep us busy.
            Event::Stopped(Signal::TTIN | Signal::TTOU) if !self.is_in_front && self.terminal.is_in_foreground() => {
                self.wants_input = true;
                self.go_on();
            }
            // Not each command that waits for input reads: many first ask whether there is any, which stops nobody.
            Event::Typed => {
                self.wants_input = true;
                self.go_on();
            }
            // What it has written belongs before what the shell says.
            Event::Stopped(signal) => {
                self.stopped_by = Some(*signal);
                self.relay.show_the_rest();
            }
            Event::AllShown => {
                self.relay.go_on();
                self.stopped_by.take().into_iter().for_each(|signal| self.stop(signal));
            }
        }
    }

    /// The command, or the session, has ended: what it has written is shown, and nothing is read for it any more.
    pub fn show_the_rest(&mut self) {
        self.has_ended = true;
        self.stopped_by = None;
        self.relay.input = Input::Left;
        self.relay.show_the_rest();
    }

    /// Passes a signal on that came to us.
    pub fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::WINCH => pty::copy_size(&self.terminal, &self.ours),
            // What is left to be shown needs nobody.
            Signal::CONT if self.has_ended => {}
            Signal::CONT => self.go_on(),
            signal => self.order(number_of(signal)),
        }
    }

    /// Stops as the command did.
    fn stop(&mut self, signal: Signal) {
        let reads = matches!(signal, Signal::TTIN | Signal::TTOU);
        self.wants_input |= reads;
        if job::has_a_shell() {
            self.leave_terminal();
            // We go on by a signal, which comes as any other.
            job::stop(&self.cgroup);
        } else if signal == Signal::TSTP || reads && !self.is_in_front {
            // As the kernel does it where nobody could let it go on; but what it reads never comes.
            if reads {
                self.bring_to_front();
            }
            self.order(number_of(Signal::CONT));
        }
    }

    /// Lets the command go on, with the terminal where we have it.
    fn go_on(&mut self) {
        self.stopped_by = None;
        self.relay.go_on();
        if !self.terminal.is_in_foreground() {
            self.leave_terminal();
        } else if self.wants_input {
            self.take_terminal();
            self.bring_to_front();
        }
        pty::copy_size(&self.terminal, &self.ours);
        job::go_on(&self.cgroup);
        self.order(number_of(Signal::CONT));
    }

    fn bring_to_front(&mut self) {
        self.is_in_front = true;
        self.order(TO_FOREGROUND);
    }

    fn take_terminal(&mut self) {
        match self.terminal.make_raw() {
            Ok(()) => self.relay.input = Input::Passed,
            Err(error) => tracing::warn!("the command gets nothing that is typed: {error:#}"),
        }
    }

    /// What becomes of what is typed while the terminal is not ours.
    fn unless_taken(&self) -> Input {
        if self.terminal.standard[0] && !self.wants_input { Input::Watched } else { Input::Left }
    }

    fn leave_terminal(&mut self) {
        self.relay.input = self.unless_taken();
        restore();
    }

    fn order(&self, byte: u8) {
        // The command may have ended in this moment.
        let _ = self.orders.try_write(&[byte]);
    }
}

/// Gives a command this terminal for each standard descriptor that is to be one.
fn give_terminal(command: &mut Command, standard: [bool; 3], terminal: &OwnedFd) -> Result<()> {
    for (number, _) in standard.iter().enumerate().filter(|(_, is_terminal)| **is_terminal) {
        let terminal = Stdio::from(copy(terminal)?);
        match number {
            0 => command.stdin(terminal),
            1 => command.stdout(terminal),
            _ => command.stderr(terminal),
        };
    }
    Ok(())
}

fn number_of(signal: Signal) -> u8 {
    u8::try_from(signal.as_raw()).expect("signals have small numbers")
}

fn copy(descriptor: &OwnedFd) -> Result<OwnedFd> {
    descriptor.try_clone().context("cannot copy a descriptor")
}

/// A descriptor that the child has too.
fn inherited(descriptor: std::io::Result<OwnedFd>) -> Result<OwnedFd> {
    let descriptor = descriptor.context("cannot make a pipe")?;
    fcntl_setfd(&descriptor, FdFlags::empty()).context("cannot pass a pipe on")?;
    Ok(descriptor)
}
