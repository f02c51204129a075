//! Writing and reading images: one map value each, in an array of maps for each size, so that a policy is replaced by one
//! pointer. What no slot points to any more is given back.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::error::chain;
use super::map::{MapError, Open, open};
use super::raw;
use agent_monitor_common::image::at;
use agent_monitor_common::limit::{IMAGE_SIZES, POLICIES};
use aya::maps::{Array, Map, MapData};

/// Names of the maps, by the size of what is in them; `SLOTS` has 1 + the index.
const MAPS: [&str; 3] = ["IMAGES_SMALL", "IMAGES_MEDIUM", "IMAGES_LARGE"];

/// Images that no slot points to which are removed at once: the kernel takes some milliseconds for each.
const AT_ONCE: usize = 8;

/// The images of all slots.
pub struct Images {
    slots: Array<MapData, u32>,
    sizes: [MapData; 3],
    /// Slot and class of images that may be there and that no slot points to.
    unused: Vec<(u32, usize)>,
    /// The same, which somebody looks for.
    found: Option<Receiver<(u32, usize)>>,
}

impl Images {
    /// Opens the maps.
    pub fn take(source: &mut impl Open) -> Result<Self, MapError> {
        let mut outer = |name| match source.map(name)? {
            Map::ArrayOfMaps(map) => Ok(map),
            _ => Err(MapError::new(name, "open", "it is no array of maps")),
        };
        let sizes = [outer(MAPS[0])?, outer(MAPS[1])?, outer(MAPS[2])?];
        Ok(Self { slots: open(source, "SLOTS")?, sizes, unused: Vec::new(), found: None })
    }

    /// Puts an image into a slot.
    pub fn set(&mut self, slot: u32, image: &[u8]) -> Result<(), MapError> {
        let Some(class) = IMAGE_SIZES.iter().position(|size| image.len() <= *size) else {
            let reason = format!("an image of {} bytes is larger than {}", image.len(), IMAGE_SIZES[2]);
            return Err(MapError::new(MAPS[2], "write", reason));
        };
        // The image first, then the number that says in which map it is: a program that reads the old number still finds
        // the old image.
        let (name, size, before) = (MAPS[class], IMAGE_SIZES[class], self.class(slot)?);
        let mut padded = vec![0; size];
        padded[..image.len()].copy_from_slice(image);
        let inner = inner(size).map_err(|error| MapError::new(name, "write", chain(&error)))?;
        raw::set(&inner, &0_u32.to_ne_bytes(), &padded).map_err(|error| MapError::new(name, "write", error))?;
        let put = |outer: &MapData| raw::set(outer, &slot.to_ne_bytes(), &inner.fd().as_fd().as_raw_fd().to_ne_bytes());
        put(&self.sizes[class]).map_err(|error| MapError::new(name, "write", error))?;
        if let Err(error) = self.point(slot, class as u32 + 1) {
            self.unused.push((slot, class));
            return Err(error);
        }
        if let Some(before) = before.filter(|before| *before != class) {
            // A program may have read the old number and not have looked there yet. Writing to an array of maps returns
            // when no program runs any more that ran before (`maybe_wait_bpf_programs` in the kernel): so it is put there
            // once more, after the number.
            match put(&self.sizes[class]) {
                Ok(()) => self.remove(slot, before),
                Err(_) => self.unused.push((slot, before)),
            }
        }
        Ok(())
    }

    /// Empties a slot.
    pub fn clear(&mut self, slot: u32) -> Result<(), MapError> {
        let before = self.class(slot)?;
        self.point(slot, 0)?;
        if let Some(before) = before {
            self.remove(slot, before);
        }
        Ok(())
    }

    /// Gives an image back that no slot points to; where the kernel refuses that it is tried again.
    fn remove(&mut self, slot: u32, class: usize) {
        if raw::remove(&self.sizes[class], &slot.to_ne_bytes()).is_err() {
            self.unused.push((slot, class));
        }
    }

    /// Has a thread look for images that an earlier daemon left and no slot points to. It takes minutes on kernels that wait
    /// for running programs after each read of an array of maps, too (`bpf_map_copy_value()` in `kernel/bpf/syscall.c`, before
    /// 6.8), and has these maps opened once more for itself.
    pub fn look_for_unused(&mut self, same: Self) -> io::Result<()> {
        let (sender, found) = channel();
        self.found = Some(found);
        std::thread::Builder::new().name("images".to_owned()).spawn(move || same.send_unused(&sender)).map(drop)
    }

    /// Sends slot and class of each image that no slot points to, as long as somebody hears it.
    fn send_unused(&self, to: &Sender<(u32, usize)>) {
        for class in 0..MAPS.len() {
            let outer = &self.sizes[class];
            // From the end: of the first ones most are in use.
            for slot in (0..POLICIES).rev() {
                let is_there = matches!(raw::get(outer, &slot.to_ne_bytes()), Ok(Some(_)));
                if is_there
                    && !matches!(self.class(slot), Ok(Some(found)) if found == class)
                    && to.send((slot, class)).is_err()
                {
                    return;
                }
            }
        }
    }

    /// Removes some of the images that no slot points to. What the kernel refuses again is left for a later daemon.
    pub fn remove_unused(&mut self) -> Result<(), MapError> {
        for _ in 0..AT_ONCE {
            let found = || self.found.as_ref().and_then(|found| found.try_recv().ok());
            let Some((slot, class)) = self.unused.pop().or_else(found) else { break };
            if self.class(slot)? != Some(class) {
                let removed = raw::remove(&self.sizes[class], &slot.to_ne_bytes());
                removed.map_err(|error| MapError::new(MAPS[class], "write", error))?;
            }
        }
        Ok(())
    }

    /// The image that is in a slot, without the padding.
    pub fn get(&self, slot: u32) -> Result<Option<Vec<u8>>, MapError> {
        let Some(class) = self.class(slot)? else { return Ok(None) };
        let name = MAPS[class];
        let id =
            raw::get(&self.sizes[class], &slot.to_ne_bytes()).map_err(|error| MapError::new(name, "read", error))?;
        let id = id.as_deref().and_then(|id| id.first_chunk()).map(|id| u32::from_ne_bytes(*id));
        let id = id.ok_or_else(|| MapError::new(name, "read", format!("slot {slot} has no image")))?;
        let inner = MapData::from_id(id).map_err(|error| MapError::new(name, "read", chain(&error)))?;
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
