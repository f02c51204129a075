//! Preparing what is pinned: this build's programs are found among the pins, or loaded, attached and pinned beside those that
//! other builds have left.

use super::attach;
use super::error::LoadError;
use super::hook::HookState;
use super::load::{self, LoadOptions};
#[cfg(feature = "kernel-log")]
use super::log;
use super::migrate;
use super::pin::{self, Pins, Place};

/// What guards the node, with what has guarded it before.
pub struct Prepared {
    /// The pins of this build. Not finished where they were made just now: they are removed when this is dropped.
    pub pins: Pins,
    /// Those of other builds, the newest first.
    pub earlier: Vec<Pins>,
    /// Whether programs were there already.
    pub taken_over: bool,
    /// What became of each hook.
    pub hooks: Vec<HookState>,
    /// Why this build's pins, which were there, could not be taken over.
    pub replaces: Option<String>,
}

/// Finds or makes the pins of this build.
pub fn prepare(place: &Place, options: &LoadOptions) -> Result<Prepared, LoadError> {
    let mut earlier = place.standing()?;
    if earlier.first().is_some_and(|newest| !newest.guards()) {
        // A removal was cut off.
        earlier.drain(..).try_for_each(|pins| pins.remove())?;
    }
    let mut key = pin::key(env!("CARGO_PKG_VERSION"), options);
    let mut replaces = None;
    if let Some(index) = earlier.iter().position(|pins| pins.is(&key)) {
        match load::standing(&earlier[index], options)? {
            Ok(hooks) => {
                let pins = earlier.remove(index);
                return Ok(Prepared { pins, earlier, taken_over: true, hooks, replaces });
            }
            Err(missing) => replaces = Some(format!("{} has no {missing} any more", earlier[index].name())),
        }
    }
    while earlier.iter().any(|pins| pins.is(&key)) {
        key.push_str("-again");
    }
    let shared = earlier.first().map(|newest| migrate::shared(newest, options)).transpose()?.unwrap_or_default();
    let mut loaded = load::open(options, &shared)?;
    let pins = place.unfinished(&key);
    pins.make_maps(&loaded)?;
    if let Some(newest) = earlier.first() {
        migrate::copy_before(newest, &pins)?;
    }
    attach::attach(&mut loaded, options)?;
    pins.make_programs(&mut loaded)?;
    if let Some(newest) = earlier.first() {
        migrate::copy_after(newest, &pins)?;
    }
    #[cfg(feature = "kernel-log")]
    log::read(&mut loaded.object)?;
    Ok(Prepared { pins, taken_over: !earlier.is_empty(), earlier, hooks: loaded.hooks, replaces })
}
