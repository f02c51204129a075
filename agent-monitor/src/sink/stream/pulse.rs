//! Whether the thread of the stream goes on. A disk that hangs holds it for as long as it likes, and tells nobody.

use std::time::{Duration, Instant};

/// How long the thread may do nothing while something waits for it. A batch takes milliseconds, and a disk that is busy a
/// second or two.
const LONGEST: Duration = Duration::from_secs(10);

/// What was seen of it, by who looks every second or so.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    done: u64,
    since: Instant,
    now: Instant,
}

impl Pulse {
    /// Nothing was seen before this moment.
    pub fn new(now: Instant) -> Self {
        Self { done: 0, since: now, now }
    }

    /// Takes note of how many messages the thread has done until now, and whether more wait for it.
    pub fn look(&mut self, done: u64, waits: bool, now: Instant) {
        if done != self.done || !waits {
            (self.done, self.since) = (done, now);
        }
        self.now = now;
    }

    /// Whether it did nothing between the last two looks, though something waited.
    pub fn is_still(&self) -> bool {
        self.since != self.now
    }

    /// Whether it has done nothing for too long.
    pub fn stalls(&self) -> bool {
        self.now.duration_since(self.since) >= LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stalls_once_something_has_waited_for_it_too_long() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let mut look = |done, waits, seconds| {
            pulse.look(done, waits, start + Duration::from_secs(seconds));
            (pulse.is_still(), pulse.stalls())
        };
        // It has nothing to do, or does it.
        assert_eq!(look(0, false, 60), (false, false));
        assert_eq!(look(5, true, 120), (false, false));
        assert_eq!(look(6, true, 180), (false, false));
        assert_eq!(look(6, true, 181), (true, false));
        assert_eq!(look(6, true, 190), (true, true));
        assert_eq!(look(7, true, 191), (false, false));
    }
}
