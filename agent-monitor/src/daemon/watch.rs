//! Watching directories.

mod cgroups;
mod policies;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, Event};
use rustix::io::Errno;

pub use cgroups::CgroupWatch;
pub use policies::{Trouble, watch_policies};

/// Waits for events of an inotify instance, gives them to `each`, and says whether there were any.
fn wait(inotify: impl AsFd + Copy, limit: Option<&Timespec>, mut each: impl FnMut(&Event<'_>)) -> io::Result<bool> {
    match poll(&mut [PollFd::new(&inotify, PollFlags::IN)], limit) {
        Ok(0) => return Ok(false),
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => each(&event),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
