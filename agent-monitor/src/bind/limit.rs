//! When a binding ends. Within one boot the boot clock says so, which nobody can set and which goes on while the machine is
//! suspended; the time of day says it to people, and across boots.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::clock;

/// The end of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The boot whose clock counts; empty where that was not known.
    boot_id: String,
    /// The end by that boot's clock, in nanoseconds.
    boot_ns: u64,
    /// The end by the time of day, in nanoseconds since 1970.
    unix_ns: u64,
    /// It has come, the agent is bound to `empty`, and that is recorded.
    pub expired: bool,
}

/// A moment by both clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// This boot; empty where it is not known.
    pub boot_id: String,
    /// Its clock, in nanoseconds.
    pub boot_ns: u64,
    /// The time of day, in nanoseconds since 1970.
    pub unix_ns: u64,
}

impl Now {
    /// Reads both clocks, in this boot.
    pub fn read(boot_id: &str) -> Self {
        Self { boot_id: boot_id.to_owned(), boot_ns: clock::boot_ns(), unix_ns: clock::unix_ns() }
    }
}

impl Limit {
    /// The end after so long from now.
    pub fn after(ttl: Duration, now: &Now) -> Self {
        let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        Self {
            boot_id: now.boot_id.clone(),
            boot_ns: now.boot_ns.saturating_add(ttl_ns),
            unix_ns: now.unix_ns.saturating_add(ttl_ns),
            expired: false,
        }
    }

    /// The same, come, acted upon and recorded.
    pub fn into_expired(self) -> Self {
        Self { expired: true, ..self }
    }

    /// Whether it has come.
    pub fn is_over(&self, now: &Now) -> bool {
        if self.boot_id == now.boot_id && !self.boot_id.is_empty() {
            self.boot_ns <= now.boot_ns
        } else {
            self.unix_ns <= now.unix_ns
        }
    }

    /// The time of day, as records write it.
    pub fn shown(&self) -> String {
        clock::at_unix_ns(self.unix_ns)
    }
}

/// The id that the kernel gives this boot.
///
/// # Errors
/// It can't be read from procfs.
pub fn boot_id(proc: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(proc.join("sys/kernel/random/boot_id"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_id: &str, boot_ns: u64, unix_ns: u64) -> Now {
        Now { boot_id: boot_id.to_owned(), boot_ns, unix_ns }
    }

    #[test]
    fn within_a_boot_no_change_of_the_time_of_day_moves_the_end() {
        let limit = Limit::after(Duration::from_nanos(10), &at("a", 5, 1000));
        for unix_ns in [0, 1000, u64::MAX] {
            assert_eq!([14, 15, 16].map(|boot_ns| limit.is_over(&at("a", boot_ns, unix_ns))), [false, true, true]);
        }
    }

    #[test]
    fn in_another_boot_or_an_unknown_one_the_time_of_day_counts() {
        for (made, now) in [("a", "b"), ("", ""), ("a", "")] {
            let limit = Limit::after(Duration::from_nanos(10), &at(made, 5, 1000));
            assert_eq!([1009, 1010].map(|unix_ns| limit.is_over(&at(now, 0, unix_ns))), [false, true], "{made} {now}");
        }
    }

    #[test]
    fn the_longest_time_never_wraps() {
        let limit = Limit::after(Duration::MAX, &at("a", 5, 1000));
        assert!(!limit.is_over(&at("a", u64::MAX - 1, 0)) && limit.shown().ends_with('Z'));
    }

    #[test]
    fn this_boot_has_an_id() {
        let id = boot_id(Path::new("/proc")).expect("procfs is mounted");
        assert_eq!(id.len(), 36);
        assert!(Now::read(&id).boot_ns > 0 && boot_id(Path::new("/does/not/exist")).is_err());
    }
}
