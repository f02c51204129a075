//! The programs that were there already: of this build, taken over as they are, or of others, which end once ours are kept.

use std::collections::{HashMap, HashSet};

use super::Programs;
use super::error::LoadError;
use super::map::{self, MapError};
use super::migrate;
use super::pin::Pins;

/// What another build counted.
pub struct Counted {
    /// Name of its pins.
    pub build: String,
    /// The numbers of each agent, which are added to those of this build one by one.
    pub agents: HashMap<u32, Vec<u64>>,
}

impl Programs {
    /// Whether the programs were there already, and their maps may hold bindings and images.
    #[must_use]
    pub fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// Says that all is well with what was loaded: from now on the pins stay when this process ends, and the programs of
    /// other builds are detached.
    ///
    /// # Errors
    /// The pins could not be changed.
    pub fn keep(&mut self) -> Result<(), LoadError> {
        self.pins.as_mut().map_or(Ok(()), Pins::finish)?;
        self.earlier.iter().try_for_each(Pins::detach)
    }

    /// The builds that were taken over from and counted in maps of their own, with what they counted for each agent.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn counted_before(&self) -> Result<Vec<Counted>, MapError> {
        let Some(pins) = &self.pins else { return Ok(Vec::new()) };
        let own = |earlier: &&Pins| !migrate::is_shared(earlier, pins, "AGENTS");
        // Two that shared a map counted once.
        let mut seen = HashSet::new();
        let counted = |earlier: &Pins| {
            let is_first = migrate::map_id(earlier, "AGENTS").is_none_or(|id| seen.insert(id));
            let agents = if is_first { migrate::agent_counters(earlier)? } else { HashMap::new() };
            Ok(Counted { build: earlier.name(), agents })
        };
        self.earlier.iter().filter(own).map(counted).collect()
    }

    /// Counts on from these numbers, of agents whose earlier counters are gone.
    pub fn count_from(&mut self, base: &HashMap<u32, Vec<u64>>) {
        self.maps.set_base(base.iter().map(|(number, counted)| (*number, map::agent_counters(counted))).collect());
    }

    /// Whether the counters of the node are another build's.
    #[must_use]
    pub fn shares_counters(&self) -> bool {
        let Some(pins) = &self.pins else { return false };
        self.taken_over && self.earlier.first().is_none_or(|earlier| migrate::is_shared(earlier, pins, "COUNTERS"))
    }

    /// Removes what is left of other builds.
    ///
    /// # Errors
    /// A pin could not be removed.
    pub fn forget_earlier(&mut self) -> Result<(), LoadError> {
        while let Some(earlier) = self.earlier.pop() {
            earlier.remove()?;
            tracing::info!(pins = earlier.name(), "programs of another build removed");
        }
        Ok(())
    }
}
