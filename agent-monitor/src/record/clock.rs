//! Time: events carry the boot clock, records the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Turns the boot clock into the time of day by the difference of the two when it was made. A later change of the
/// system's time does not reorder records.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: SystemTime,
}

impl Clock {
    /// Reads both clocks.
    pub fn now() -> Self {
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(since_boot.tv_nsec).unwrap_or(0);
        let now = SystemTime::now();
        Self { boot: now.checked_sub(Duration::new(seconds, nanoseconds)).unwrap_or(now) }
    }

    /// A clock of a machine that was booted so long after the epoch.
    #[cfg(test)]
    pub fn booted(after_epoch: Duration) -> Self {
        Self { boot: UNIX_EPOCH + after_epoch }
    }

    /// The time of day at this boot time, as records write it.
    pub fn at(&self, boot_ns: u64) -> String {
        format(self.boot.checked_add(Duration::from_nanos(boot_ns)).unwrap_or(UNIX_EPOCH))
    }
}

/// The time now, as records write it.
pub fn now() -> String {
    format(SystemTime::now())
}

/// The boot clock now, in nanoseconds.
pub fn boot_ns() -> u64 {
    let since_boot = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(since_boot.tv_nsec).unwrap_or(0))
}

/// The time of day now, in nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// This time of day, as records write it.
pub fn at_unix_ns(unix_ns: u64) -> String {
    format(UNIX_EPOCH + Duration::from_nanos(unix_ns))
}

fn format(time: SystemTime) -> String {
    // Formatting fails past the year 9999, where a hostile or broken boot time could lead.
    let time = if time < UNIX_EPOCH + Duration::from_secs(253_402_300_799) { time } else { UNIX_EPOCH };
    humantime::format_rfc3339_nanos(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_becomes_the_time_of_day() {
        let clock = Clock::booted(Duration::from_secs(1_700_000_000));
        assert_eq!(clock.at(1_500_000_001), "2023-11-14T22:13:21.500000001Z");
    }

    #[test]
    fn no_boot_time_panics() {
        let clock = Clock::booted(Duration::from_secs(1_700_000_000));
        assert_eq!(clock.at(0), "2023-11-14T22:13:20.000000000Z");
        assert!(clock.at(u64::MAX).ends_with('Z'));
        assert!(Clock::now().at(u64::MAX).ends_with('Z'));
    }
}
