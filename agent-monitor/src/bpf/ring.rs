//! Reading the rings.

use super::error::LoadError;
use super::fold::{self, Folds, Repeats};
use super::map::{MapError, Open, open};
use super::migrate::is_shared;
use super::pin::Pins;
use agent_monitor_common::event::HEADER_BYTES;
use agent_monitor_common::limit::{DENIAL_RING_BYTES, TELEMETRY_RING_BYTES};
use aya::maps::{MapData, RingBuf};
use std::io;
use tokio::io::unix::AsyncFd;

/// Which ring an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Denials, and cgroups that could not be bound.
    Denials,
    /// Everything else.
    Telemetry,
}

/// Both rings.
pub struct Rings {
    denials: AsyncFd<RingBuf<MapData>>,
    telemetry: AsyncFd<RingBuf<MapData>>,
    /// Those of a build that was taken over: its programs end soon, and what they left is read with the rest.
    earlier: Vec<(Ring, RingBuf<MapData>)>,
    /// Repeats of what was in the rings, also those of a build that was taken over.
    folds: Vec<Folds>,
}

/// The rings and the names of their maps.
const RINGS: [(Ring, &str); 2] = [(Ring::Denials, "DENIALS"), (Ring::Telemetry, "TELEMETRY")];

impl Rings {
    pub(super) fn take(source: &mut impl Open) -> Result<Self, LoadError> {
        let mut ring = |name: &'static str| -> Result<_, LoadError> {
            let ring: RingBuf<MapData> = open(source, name)?;
            // SAFETY: the ring owns its map's descriptor, gives the same one each time, and keeps it open while it lives.
            let watched = unsafe { AsyncFd::register(ring) };
            Ok(watched.map_err(|error| MapError::new(name, "watch", error))?)
        };
        Ok(Self {
            denials: ring("DENIALS")?,
            telemetry: ring("TELEMETRY")?,
            earlier: Vec::new(),
            folds: vec![Folds::take(source)?],
        })
    }

    /// Reads the rings of another build as well, where they are not the same.
    pub(super) fn add(&mut self, mut earlier: &Pins, pins: &Pins) -> Result<(), LoadError> {
        for (ring, name) in RINGS {
            // One that was never finished may have come to its end before it had rings.
            if earlier.map_path(name).exists() && !is_shared(earlier, pins, name) {
                self.earlier.push((ring, open(&mut earlier, name)?));
            }
        }
        if fold::MAPS.iter().all(|name| earlier.map_path(name).exists() && !is_shared(earlier, pins, name)) {
            self.folds.push(Folds::take(&mut earlier)?);
        }
        Ok(())
    }

    /// Waits until a ring has events. The future may be dropped while it waits.
    ///
    /// # Errors
    /// The runtime could not wait on a ring.
    pub async fn readable(&mut self) -> io::Result<()> {
        tokio::select! {
            biased;
            guard = self.denials.readable_mut() => guard?.clear_ready(),
            guard = self.telemetry.readable_mut() => guard?.clear_ready(),
        }
        Ok(())
    }

    /// Gives all repeats that are counted now to `each`.
    ///
    /// # Errors
    /// See [`Folds::drain`].
    pub fn drain_repeats(&self, mut each: impl FnMut(Repeats<'_>)) -> Result<(), MapError> {
        self.folds.iter().map(|folds| folds.drain(&mut each)).fold(Ok(()), Result::and)
    }

    /// Gives at most `most` denials and then the other events that are there now to `each`, without waiting; `false` once
    /// there is nothing more. So the announcement of an agent, which is in the other ring before what the agent is denied,
    /// is read with it, unless it stands behind an entry that is not finished.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(Ring, &[u8])) -> bool {
        let mut found = false;
        // Of the others at most as many as the ring has room for, though more may come meanwhile.
        for (wanted, mut left) in [(Ring::Denials, most), (Ring::Telemetry, MOST_TELEMETRY)] {
            let own = match wanted {
                Ring::Denials => self.denials.get_mut(),
                Ring::Telemetry => self.telemetry.get_mut(),
            };
            let earlier = self.earlier.iter_mut().filter(|(ring, _)| *ring == wanted).map(|(_, events)| events);
            for events in earlier.chain([own]) {
                while left > 0
                    && let Some(event) = events.next()
                {
                    each(wanted, &event);
                    left -= 1;
                    found = true;
                }
            }
        }
        found
    }
}

/// As many events as have room in the ring for the others.
const MOST_TELEMETRY: usize = TELEMETRY_RING_BYTES / HEADER_BYTES;
/// How many denials have room in their ring.
pub const MOST_DENIALS: usize = DENIAL_RING_BYTES / HEADER_BYTES;
