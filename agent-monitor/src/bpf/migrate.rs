//! From the maps of another build to those of this one, while both builds' programs are attached. A map of the same shape is
//! shared, so that nothing has to be carried over and no count is lost; what has another shape is copied. Values of maps only
//! ever grow at their end: a value is copied as far as both builds know it.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use agent_monitor_common::layout::LAYOUT;
use aya::maps::{MapData, MapInfo};

use super::error::{LoadError, chain};
use super::image::Images;
use super::load::{LoadOptions, object};
use super::map::MapError;
use super::pin::{MAPS, Pins};
use super::raw;

/// What of a map must be equal for two builds to share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

/// The maps of another build that this one can use as they are, and where they are pinned.
///
/// # Errors
/// The two builds mean other things by the values of their maps.
pub fn shared(earlier: &Pins, options: &LoadOptions) -> Result<Vec<(&'static str, PathBuf)>, LoadError> {
    if earlier.layout() != Some(LAYOUT) {
        return Err(LoadError::OtherPins(earlier.name()));
    }
    let object = aya_obj::Object::parse(&object()?).map_err(|error| LoadError::Object(chain(&error)))?;
    let shape = |name: &str| {
        let map = object.maps.get(name)?;
        let entries = if name == "BINDINGS" { options.bindings } else { map.max_entries() };
        let (kind, key, value, flags) = (map.map_type(), map.key_size(), map.value_size(), map.map_flags());
        Some(Shape { kind, key, value, entries, flags })
    };
    let same = |name: &&str| pinned_shape(earlier, name).is_some_and(|found| Some(found) == shape(name));
    Ok(MAPS.into_iter().filter(same).map(|name| (name, earlier.map_path(name))).collect())
}

fn pinned_shape(pins: &Pins, name: &str) -> Option<Shape> {
    let info = MapInfo::from_pin(pins.map_path(name)).ok()?;
    Some(Shape {
        kind: info.map_type().ok()? as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
        flags: info.map_flags(),
    })
}

/// Whether two builds have the same map of this name.
pub fn is_shared(one: &Pins, other: &Pins, name: &str) -> bool {
    let id = map_id(one, name);
    id.is_some() && id == map_id(other, name)
}

/// The kernel's id of a build's map; none where it has no such map.
pub fn map_id(pins: &Pins, name: &str) -> Option<u32> {
    MapInfo::from_pin(pins.map_path(name)).ok().map(|info| info.id())
}

/// What a build counted for each agent, in a map of its own.
pub fn agent_counters(pins: &Pins) -> Result<HashMap<u32, Vec<u64>>, MapError> {
    const NAME: &str = "AGENTS";
    if !pins.map_path(NAME).exists() {
        // It came to its end before it had a map to count in.
        return Ok(HashMap::new());
    }
    let map = MapData::from_pin(pins.map_path(NAME));
    let map = map.map_err(|error| MapError::new(NAME, "open the pin of", chain(&error)))?;
    let failed = |error: io::Error| MapError::new(NAME, "read", error);
    let mut counted = HashMap::new();
    for key in raw::keys(&map).map_err(failed)? {
        let Some(value) = raw::get(&map, &key).map_err(failed)? else { continue };
        let numbers = value.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        if let Some(number) = key.first_chunk() {
            counted.insert(u32::from_ne_bytes(*number), numbers.collect());
        }
    }
    Ok(counted)
}

/// Copies what is not shared, before the new programs are attached.
pub fn copy_before(earlier: &Pins, pins: &Pins) -> Result<(), LoadError> {
    if !IMAGES.iter().all(|name| is_shared(earlier, pins, name)) {
        let (old, mut new) = (Images::take(&mut { earlier })?, Images::take(&mut { pins })?);
        for slot in old.slots()? {
            if let Some(image) = old.get(slot)? {
                new.set(slot, &image)?;
            }
        }
    }
    for name in ["BINDINGS_LOST", "SEQUENCES"] {
        if let Some((old, new)) = unshared(earlier, pins, name)? {
            copy_array(&old, &new, name).map_err(|error| MapError::new(name, "copy", error))?;
        }
    }
    copy_hashes(earlier, pins).map(drop)
}

const IMAGES: [&str; 4] = ["SLOTS", "IMAGES_SMALL", "IMAGES_MEDIUM", "IMAGES_LARGE"];

/// Copies what has come since, once the new programs are attached: from then on both builds bind new cgroups.
///
/// A pass that finds nothing new ends it. A cgroup that such a pass has missed was made during the pass, so in a cgroup
/// that the new programs know, or that was made during the pass as well; the first of these was bound by the new programs.
pub fn copy_after(earlier: &Pins, pins: &Pins) -> Result<(), LoadError> {
    while copy_hashes(earlier, pins)? {}
    // Gone since it was copied.
    if let Some((old, new)) = unshared(earlier, pins, "BINDINGS")? {
        let failed = |error: io::Error| MapError::new("BINDINGS", "copy", error);
        for key in raw::keys(&new).map_err(failed)? {
            if raw::get(&old, &key).map_err(failed)?.is_none() {
                raw::remove(&new, &key).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Copies entries that are not in the new maps yet, and says whether there were any.
fn copy_hashes(earlier: &Pins, pins: &Pins) -> Result<bool, LoadError> {
    let mut some = false;
    // The counters of agents start at 0: those of the old map go on until its programs are detached, and are added then.
    for (name, empty) in [("AGENTS", true), ("BINDINGS", false), ("IPC_OBJECTS", false)] {
        if let Some((old, new)) = unshared(earlier, pins, name)? {
            some |= copy_hash(&old, &new, empty).map_err(|error| MapError::new(name, "copy", error))?;
        }
    }
    Ok(some)
}

fn unshared(earlier: &Pins, pins: &Pins, name: &'static str) -> Result<Option<(MapData, MapData)>, LoadError> {
    if is_shared(earlier, pins, name) {
        return Ok(None);
    }
    let open = |pins: &Pins| {
        let map = MapData::from_pin(pins.map_path(name));
        map.map_err(|error| MapError::new(name, "open the pin of", chain(&error)))
    };
    Ok(Some((open(earlier)?, open(pins)?)))
}

fn copy_hash(old: &MapData, new: &MapData, empty: bool) -> io::Result<bool> {
    let size = new.info().map_err(io::Error::other)?.value_size() as usize;
    let mut some = false;
    for key in raw::keys(old)? {
        let Some(mut value) = raw::get(old, &key)? else { continue };
        if empty {
            value.clear();
        }
        value.resize(size, 0);
        some |= raw::add(new, &key, &value)?;
    }
    Ok(some)
}

fn copy_array(old: &MapData, new: &MapData, name: &str) -> io::Result<()> {
    /// Numbers that both builds' programs give out meanwhile must not be the same.
    const AHEAD: u64 = 1 << 20;
    let (before, after) = (old.info().map_err(io::Error::other)?, new.info().map_err(io::Error::other)?);
    for index in 0..before.max_entries().min(after.max_entries()) {
        let Some(mut value) = raw::get(old, &index.to_ne_bytes())? else { continue };
        if name == "SEQUENCES"
            && let Some(number) = value.first_chunk_mut()
        {
            *number = (u64::from_ne_bytes(*number) + AHEAD).to_ne_bytes();
        }
        value.resize(after.value_size() as usize, 0);
        raw::set(new, &index.to_ne_bytes(), &value)?;
    }
    Ok(())
}
