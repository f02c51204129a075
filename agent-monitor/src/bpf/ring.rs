//! Reading the rings.

use super::load::LoadError;
use super::map::{MapError, Open, open};
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
}

impl Rings {
    pub(super) fn take(source: &mut impl Open) -> Result<Self, LoadError> {
        let mut ring = |name: &'static str| -> Result<_, LoadError> {
            let ring: RingBuf<MapData> = open(source, name)?;
            // SAFETY: the ring owns its map's descriptor, gives the same one each time, and keeps it open while it lives.
            let watched = unsafe { AsyncFd::register(ring) };
            Ok(watched.map_err(|error| MapError::new(name, "watch", error))?)
        };
        Ok(Self { denials: ring("DENIALS")?, telemetry: ring("TELEMETRY")? })
    }

    /// Waits until a ring has events, and gives all that are there to `each`. The future may be dropped while it waits.
    ///
    /// # Errors
    /// The runtime could not wait on a ring.
    pub async fn read(&mut self, mut each: impl FnMut(Ring, &[u8])) -> io::Result<()> {
        tokio::select! {
            biased;
            guard = self.denials.readable_mut() => guard?.clear_ready(),
            guard = self.telemetry.readable_mut() => guard?.clear_ready(),
        }
        self.drain(&mut each);
        Ok(())
    }

    /// Gives all events that are there now to `each`, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(Ring, &[u8])) {
        while let Some(event) = self.denials.get_mut().next() {
            each(Ring::Denials, &event);
        }
        while let Some(event) = self.telemetry.get_mut().next() {
            each(Ring::Telemetry, &event);
        }
    }
}
