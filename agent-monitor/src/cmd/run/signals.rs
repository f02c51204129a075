//! Signals that come to `run` and concern its command.

use std::io::Result;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use super::terminal::is_in_foreground;

/// Signals, caught.
pub struct Signals {
    terminate: unix::Signal,
    hangup: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    user1: unix::Signal,
    user2: unix::Signal,
    stop: unix::Signal,
    go_on: unix::Signal,
    size: unix::Signal,
    /// The terminal that our process group may be in the foreground of.
    terminal: Option<OwnedFd>,
}

impl Signals {
    /// Catches them from now on.
    pub fn new() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            stop: signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?,
            go_on: signal(SignalKind::from_raw(Signal::CONT.as_raw()))?,
            size: signal(SignalKind::window_change())?,
            // Most services have none.
            terminal: open("/dev/tty", flags, Mode::empty()).ok(),
        })
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            // In this order: what came while we were stopped comes to the command before it goes on, or it might stop again
            // first, and we with it.
            biased;
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.user1.recv() => Signal::USR1,
            _ = self.user2.recv() => Signal::USR2,
            _ = self.stop.recv() => Signal::TSTP,
            _ = self.go_on.recv() => Signal::CONT,
            _ = self.size.recv() => Signal::WINCH,
        }
    }

    /// Whether a key of the terminal sends us signals: we are in its foreground.
    pub fn are_typed(&self) -> bool {
        self.terminal.as_ref().is_some_and(is_in_foreground)
    }
}
