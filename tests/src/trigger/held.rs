//! What a trigger keeps from step to step.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use super::words::Words;

/// Descriptors under names, and children.
#[derive(Debug, Default)]
pub struct Held {
    /// Descriptors.
    pub descriptors: HashMap<String, OwnedFd>,
}

impl Held {
    /// The descriptor that a word names.
    pub fn get(&self, words: &Words, index: usize) -> Result<i32, i32> {
        let found = self.descriptors.get(&words.text(index));
        found.map(AsRawFd::as_raw_fd).ok_or(libc::EBADF)
    }

    /// Keeps a descriptor under the name that a word gives.
    pub fn keep(&mut self, words: &Words, index: usize, descriptor: OwnedFd) {
        self.descriptors.insert(words.text(index), descriptor);
    }
}
