//! Writing and reading images: one map value each, in an array of maps for each size, so that a policy is replaced by one
//! pointer.

use super::error::chain;
use super::map::{MapError, Open, open};
use super::raw;
use agent_monitor_common::image::at;
use agent_monitor_common::limit::{IMAGE_SIZES, POLICIES};
use aya::maps::{Array, ArrayOfMaps, MapData};

/// Names of the maps, by the size of what is in them; `SLOTS` has 1 + the index.
const MAPS: [&str; 3] = ["IMAGES_SMALL", "IMAGES_MEDIUM", "IMAGES_LARGE"];

/// The images of all slots.
pub struct Images {
    slots: Array<MapData, u32>,
    sizes: [ArrayOfMaps<MapData>; 3],
}

impl Images {
    /// Opens the maps.
    pub fn take(source: &mut impl Open) -> Result<Self, MapError> {
        Ok(Self {
            slots: open(source, "SLOTS")?,
            sizes: [open(source, MAPS[0])?, open(source, MAPS[1])?, open(source, MAPS[2])?],
        })
    }

    /// Puts an image into a slot.
    pub fn set(&mut self, slot: u32, image: &[u8]) -> Result<(), MapError> {
        let Some(class) = IMAGE_SIZES.iter().position(|size| image.len() <= *size) else {
            let reason = format!("an image of {} bytes is larger than {}", image.len(), IMAGE_SIZES[2]);
            return Err(MapError::new(MAPS[2], "write", reason));
        };
        // The image first, then the number that says in which map it is: a program that reads the old number still finds
        // the old image.
        let (name, size) = (MAPS[class], IMAGE_SIZES[class]);
        let mut padded = vec![0; size];
        padded[..image.len()].copy_from_slice(image);
        let inner = inner(size).map_err(|error| MapError::new(name, "write", chain(&error)))?;
        raw::set(&inner, &0_u32.to_ne_bytes(), &padded).map_err(|error| MapError::new(name, "write", error))?;
        let outer = &mut self.sizes[class];
        outer.set(slot, &inner, 0).map_err(|error| MapError::new(name, "write", chain(&error)))?;
        self.point(slot, class as u32 + 1)
    }

    /// Empties a slot.
    pub fn clear(&mut self, slot: u32) -> Result<(), MapError> {
        self.point(slot, 0)
    }

    /// The image that is in a slot, without the padding.
    pub fn get(&self, slot: u32) -> Result<Option<Vec<u8>>, MapError> {
        let Some(class) = self.class(slot)? else { return Ok(None) };
        let name = MAPS[class];
        let inner = self.sizes[class].get(&slot, 0).map_err(|error| MapError::new(name, "read", chain(&error)))?;
        let image = raw::get(&inner, &0_u32.to_ne_bytes()).map_err(|error| MapError::new(name, "read", error))?;
        Ok(image.map(|mut image| {
            let at = at::LENGTH as usize;
            let length = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
            // A copy without the room for the largest image of its map.
            image.truncate(length as usize);
            image.shrink_to_fit();
            image
        }))
    }

    /// The slots that have an image.
    pub fn slots(&self) -> Result<Vec<u32>, MapError> {
        let mut found = Vec::new();
        for slot in 0..POLICIES {
            if self.class(slot)?.is_some() {
                found.push(slot);
            }
        }
        Ok(found)
    }

    fn class(&self, slot: u32) -> Result<Option<usize>, MapError> {
        let number = self.slots.get(&slot, 0).map_err(|error| MapError::new("SLOTS", "read", chain(&error)))?;
        Ok((number as usize).checked_sub(1).filter(|class| *class < MAPS.len()))
    }

    fn point(&mut self, slot: u32, number: u32) -> Result<(), MapError> {
        self.slots.set(slot, number, 0).map_err(|error| MapError::new("SLOTS", "write", chain(&error)))
    }
}

/// A map for one image.
fn inner(size: usize) -> Result<MapData, aya::maps::MapError> {
    /// `BPF_MAP_TYPE_ARRAY`.
    const ARRAY: u32 = 2;
    let size = u32::try_from(size).expect("sizes of images are a few MiB");
    MapData::create(aya_obj::Map::new_from_params(ARRAY, 4, size, 1, 0), "image", None)
}
