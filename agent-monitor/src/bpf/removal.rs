//! Removing what is pinned: the programs are detached by it.

use std::path::Path;

use agent_monitor_common::binding::Binding;

use super::error::LoadError;
use super::map::Maps;
use super::pin::{Pins, Place};

/// What is pinned, about to be removed.
pub struct Removal {
    standing: Vec<Pins>,
    // Held until the end, so that no daemon starts meanwhile.
    _place: Place,
}

/// The pins of one build that were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Name of the directory.
    pub name: String,
    /// How many links were pinned in it.
    pub links: usize,
    /// How many programs.
    pub programs: usize,
    /// How many maps.
    pub maps: usize,
}

impl Removal {
    /// Looks for what is pinned.
    ///
    /// # Errors
    /// No BPF file system is there, or a daemon holds the pins.
    pub fn find(bpffs: &Path) -> Result<Self, LoadError> {
        let place = Place::hold(bpffs)?;
        Ok(Self { standing: place.standing()?, _place: place })
    }

    /// What is bound by it.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn bindings(&self) -> Result<Vec<Binding>, LoadError> {
        let mut bindings = Vec::new();
        for mut pins in &self.standing {
            // Of a build whose maps are laid out in another way nothing is known but what was written down.
            let Ok(maps) = Maps::take(&mut pins) else { continue };
            bindings.extend(maps.bindings()?.into_iter().map(|(_, binding)| binding));
        }
        Ok(bindings)
    }

    /// Removes it all.
    ///
    /// # Errors
    /// A pin could not be removed; those before it are.
    pub fn remove(self) -> Result<Vec<Removed>, LoadError> {
        let mut removed = Vec::new();
        for pins in &self.standing {
            let [links, programs, maps] = pins.counts();
            pins.remove()?;
            removed.push(Removed { name: pins.name(), links, programs, maps });
        }
        Ok(removed)
    }
}
