//! Bytes between the user's terminal and the command's, as they are.

use std::io::{ErrorKind, Result};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, retry_on_intr, write};
use tokio::net::unix::pipe::{Receiver, Sender};

/// Most bytes that are on their way in one direction.
const ROOM: usize = 16 << 10;
/// Most bytes that are shown after the command has ended: the kernel holds far less, and what is still written comes from
/// processes that were left behind.
const REST: usize = 1 << 20;

/// Both directions.
pub struct Relay {
    /// What is typed, on its way.
    typed: Flow,
    /// What is shown, on its way.
    shown: Flow,
    /// How many bytes are shown at most before all counts as shown, where that is asked for.
    rest: Option<usize>,
    /// What becomes of what is typed.
    pub input: Input,
}

/// What becomes of what is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It goes to the command.
    Passed,
    /// It stays where it is, but is told of.
    Watched,
    /// It stays where it is.
    Left,
}

/// What a relay has done.
pub enum Step {
    /// It has moved bytes.
    Moved,
    /// All is shown that the command has written, where that was asked for.
    AllShown,
    /// Something was typed, and is watched.
    Typed,
}

impl Relay {
    /// Between what is typed, what is shown, and our side of the command's terminal. Reads and writes of them do not wait.
    ///
    /// # Errors
    /// They can't be waited for.
    pub fn new(input: OwnedFd, output: OwnedFd, ours: OwnedFd) -> Result<Self> {
        let shown = Flow::new(ours.try_clone()?, output)?;
        Ok(Self { typed: Flow::new(input, ours)?, shown, rest: None, input: Input::Left })
    }

    /// From now on [`Relay::step`] says when all is shown that the command has written.
    pub fn show_the_rest(&mut self) {
        self.rest = Some(REST);
    }

    /// Shows without an end again.
    pub fn go_on(&mut self) {
        self.rest = None;
    }

    /// Waits for something and does it. It can be given up without a loss. `is_ours` says whether what is typed now is for the
    /// command, and is asked again when more comes.
    pub async fn step(&mut self, is_ours: impl Fn() -> bool) -> Step {
        if let Some(left) = self.rest
            && self.shown.is_empty()
        {
            // The kernel brings what was written to the end before it says that there is nothing.
            let more = !self.shown.is_over && left > 0 && self.shown.read().is_ok();
            self.rest = Some(left.saturating_sub(self.shown.bytes.len()));
            return if more { Step::Moved } else { Step::AllShown };
        }
        let (input, is_showing) = (self.input, !self.shown.is_over);
        tokio::select! {
            () = self.shown.step(), if is_showing => Step::Moved,
            step = self.typed.typed(input, is_ours), if !self.typed.is_over && input != Input::Left => step,
            else => std::future::pending().await,
        }
    }
}

/// One direction. What was read stays until it is written.
struct Flow {
    // Ends of pipes in name: they wait for any descriptor, and nothing else is asked of them.
    from: Receiver,
    to: Sender,
    bytes: Vec<u8>,
    written: usize,
    /// Nothing more can be read.
    is_over: bool,
}

impl Flow {
    fn new(from: OwnedFd, to: OwnedFd) -> Result<Self> {
        let (from, to) = (Receiver::from_owned_fd_unchecked(from)?, Sender::from_owned_fd_unchecked(to)?);
        Ok(Self { from, to, bytes: Vec::with_capacity(ROOM), written: 0, is_over: false })
    }

    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Waits until it can read, or write what was read, and does.
    async fn step(&mut self) {
        if self.is_empty() {
            let ready = self.from.readable().await;
            self.written = 0;
            let taken = ready.and_then(|()| self.from.try_io(|| take(&self.from, &mut self.bytes)));
            self.is_over = taken.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        } else {
            let ready = self.to.writable().await;
            let bytes = self.bytes.get(self.written..).unwrap_or_default();
            match ready.and_then(|()| self.to.try_io(|| give(&self.to, bytes))) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Nobody is there to take it; whoever writes must not wait for that.
                Err(_) => self.written = self.bytes.len(),
            }
        }
    }

    /// The same for what is typed, which may be only watched.
    async fn typed(&mut self, input: Input, is_ours: impl Fn() -> bool) -> Step {
        if input == Input::Passed {
            self.step().await;
            return Step::Moved;
        }
        loop {
            let ready = self.from.readable().await;
            match ready.and_then(|()| self.from.try_io(|| is_there(&self.from, &is_ours))) {
                Ok(()) => return Step::Typed,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A terminal that is gone.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Reads what is there now.
    fn read(&mut self) -> Result<()> {
        self.written = 0;
        take(&self.from, &mut self.bytes)
    }
}

fn is_there(from: &Receiver, is_ours: impl Fn() -> bool) -> Result<()> {
    let mut polled = [PollFd::new(from, PollFlags::IN)];
    let there = poll(&mut polled, Some(&Timespec::default()))? > 0;
    if there && is_ours() { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
}

fn take(from: &Receiver, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.resize(ROOM, 0);
    let taken = retry_on_intr(|| read(from.as_fd(), bytes.as_mut_slice()));
    bytes.truncate(*taken.as_ref().unwrap_or(&0));
    match taken? {
        // A terminal that was hung up.
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn give(to: &Sender, bytes: &[u8]) -> Result<usize> {
    match retry_on_intr(|| write(to.as_fd(), bytes))? {
        0 => Err(Errno::AGAIN.into()),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_and_the_rest_is_shown_before_the_end() {
        let pipe = || pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).expect("pipes can be made");
        let ((ours, theirs), (input, nobody), (shown, output)) = (pipe(), pipe(), pipe());
        let mut relay = Relay::new(input, output, ours).expect("pipes can be waited for");
        drop(nobody);
        let all: Vec<u8> = (0..=u8::MAX).cycle().take(3 * ROOM).collect();
        assert_eq!(write(&theirs, &all).expect("a pipe has room"), all.len());
        relay.show_the_rest();
        while !matches!(relay.step(|| false).await, Step::AllShown) {}
        let mut found = vec![0; all.len() + 1];
        let length = read(&shown, found.as_mut_slice()).expect("something was shown");
        assert_eq!(found.get(..length), Some(all.as_slice()));
    }
}
