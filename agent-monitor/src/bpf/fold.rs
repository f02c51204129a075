//! The repeats of denials that were told, see `agent_monitor_common::fold`: taken here, each exactly once.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use agent_monitor_common::fold::{COUNT, EVENT_OFFSET, TAG};
use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::map::{MapError, Open};
use super::raw;

/// How often one event happened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats<'a> {
    /// The event, as it was in the ring.
    pub event: &'a [u8],
    /// How often; not 0.
    pub count: u64,
    /// When for the first time, nanoseconds of the boot clock.
    pub first_ns: u64,
    /// When for the last time.
    pub last_ns: u64,
}

/// The slots of a build.
pub struct Folds {
    words: Words,
    events: MapData,
}

const WORDS: &str = "FOLD_WORDS";
const EVENTS: &str = "FOLDED";
/// The maps.
pub const MAPS: [&str; 2] = [WORDS, EVENTS];

impl Folds {
    /// Opens the maps.
    ///
    /// # Errors
    /// They are not there, or the kernel refuses to map them.
    pub fn take(source: &mut impl Open) -> Result<Self, MapError> {
        let mut open = |name| match source.map(name)? {
            Map::Array(data) => Ok(data),
            _ => Err(MapError::new(name, "open", "it is of another kind")),
        };
        let (words, events) = (open(WORDS)?, open(EVENTS)?);
        let words = Words::map(&words).map_err(|error| MapError::new(WORDS, "map", error))?;
        Ok(Self { words, events })
    }

    /// Takes all repeats that are counted now. What can't be read stays counted, and is taken the next time.
    ///
    /// # Errors
    /// The kernel refuses to give an event; the others are taken all the same.
    pub fn drain(&self, mut each: impl FnMut(Repeats<'_>)) -> Result<(), MapError> {
        let mut result = Ok(());
        for (slot, word) in (0_u32..).zip(self.words.all()) {
            let found = word.load(Ordering::Acquire);
            if found & COUNT == 0 || found & TAG == 0 {
                continue;
            }
            // While it counts something the slot is given to nobody else, and only we take what it counts.
            let event = match raw::get(&self.events, &slot.to_ne_bytes()) {
                Ok(event) => event.unwrap_or_default(),
                Err(error) => {
                    result = Err(MapError::new(EVENTS, "read", error));
                    continue;
                }
            };
            let count = word.fetch_and(TAG, Ordering::AcqRel) & COUNT;
            let (times, event) = event.split_at_checked(EVENT_OFFSET).unwrap_or_default();
            let mut times = times.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
            let (first_ns, last_ns) = (times.next().unwrap_or(0), times.next().unwrap_or(0));
            each(Repeats { event, count, first_ns, last_ns });
        }
        result
    }
}

/// The words, in memory that the kernel programs write to as well.
struct Words {
    start: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the memory is mapped until the value is dropped, and is only accessed atomically.
unsafe impl Send for Words {}

impl Words {
    fn map(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<AtomicU64>() {
            return Err(io::Error::other("its values have another size"));
        }
        let length = info.max_entries() as usize;
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses where, so that nothing else is there; it refuses more bytes than the map has.
        let start = unsafe {
            let bytes = length * size_of::<AtomicU64>();
            mmap(std::ptr::null_mut(), bytes, flags, MapFlags::SHARED, map.fd().as_fd(), 0)?
        };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("it was mapped at 0"))?;
        Ok(Self { start, length })
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped there, as long as we live; they are numbers that change only atomically.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to what was mapped; the length is that of the mapping.
        if let Err(error) = unsafe { munmap(self.start.as_ptr().cast(), self.length * size_of::<AtomicU64>()) } {
            tracing::warn!(%error, "cannot unmap the map {WORDS}");
        }
    }
}
