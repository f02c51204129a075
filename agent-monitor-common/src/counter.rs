//! Counters that the kernel programs keep whether or not anybody reads them.

use crate::class::{CLASSES, Fault, Verdict};

/// Counters of one agent: value of the map `AGENTS`, keyed by agent number (`u32`). Made by the daemon when it binds;
/// added to by the kernel programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentCounters {
    /// Operations denied, by class.
    pub denied: [u64; CLASSES],
    /// Operations that enforcing would have denied, by class.
    pub audited: [u64; CLASSES],
    /// Denials whose event is in the ring, or that are counted as repeats (see [`crate::fold`]).
    pub emitted: u64,
    /// Denials whose event found no room in the ring.
    pub lost: u64,
    /// Other events that found no room.
    pub telemetry_lost: u64,
    /// Operations that could not be decided.
    pub faults: u64,
    /// Nothing.
    #[cfg(feature = "other-layout")]
    pub more: u64,
}

impl AgentCounters {
    /// Nothing was counted.
    pub const NONE: Self = Self {
        denied: [0; CLASSES],
        audited: [0; CLASSES],
        emitted: 0,
        lost: 0,
        telemetry_lost: 0,
        faults: 0,
        #[cfg(feature = "other-layout")]
        more: 0,
    };
}

/// Index in the per-CPU map `COUNTERS` of the number of operations of `class` with `verdict`.
#[inline(always)]
#[must_use]
pub const fn operations(class: u8, verdict: Verdict) -> u32 {
    class as u32 * VERDICTS + verdict as u32
}

/// Index in `COUNTERS` of the number of denials of `class` for `reason`.
#[inline(always)]
#[must_use]
pub const fn denials(class: u8, reason: u8) -> u32 {
    DENIALS + class as u32 * REASONS + reason as u32
}

/// Index in `COUNTERS` of the number of times that `fault` happened.
#[inline(always)]
#[must_use]
pub const fn faults(fault: u8) -> u32 {
    FAULTS + fault as u32
}

/// Index in `COUNTERS` of denial events that found no room in their ring.
pub const DENIALS_LOST: u32 = FAULTS + FAULT_KINDS;
/// Index in `COUNTERS` of telemetry events that found no room in their ring.
pub const TELEMETRY_LOST: u32 = DENIALS_LOST + 1;
/// Entries of `COUNTERS`.
pub const COUNTERS: u32 = TELEMETRY_LOST + 1;

const VERDICTS: u32 = Verdict::ALL.len() as u32;
const REASONS: u32 = 8;
const DENIALS: u32 = CLASSES as u32 * VERDICTS;
const FAULTS: u32 = DENIALS + CLASSES as u32 * REASONS;
const FAULT_KINDS: u32 = 16;

const _: () = {
    assert!(Fault::ALL.len() < FAULT_KINDS as usize);
    assert!(cfg!(feature = "other-layout") || size_of::<AgentCounters>() == (2 * CLASSES + 4) * 8);
};
