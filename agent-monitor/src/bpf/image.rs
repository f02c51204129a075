//! Writing images: one map value each, in an array of maps for each size, so that a policy is replaced by one pointer.

use super::map::{MapError, chain};
use agent_monitor_common::limit::IMAGE_SIZES;
use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, MapData};

type Inner<const SIZE: usize> = Array<MapData, [u8; SIZE]>;
type Outer<const SIZE: usize> = ArrayOfMaps<MapData, Inner<SIZE>>;

/// The images of all slots.
pub struct Images {
    slots: Array<MapData, u32>,
    small: Outer<{ IMAGE_SIZES[0] }>,
    medium: Outer<{ IMAGE_SIZES[1] }>,
    large: Outer<{ IMAGE_SIZES[2] }>,
}

impl Images {
    pub fn take(object: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self {
            slots: open(object, "SLOTS")?,
            small: open(object, "IMAGES_SMALL")?,
            medium: open(object, "IMAGES_MEDIUM")?,
            large: open(object, "IMAGES_LARGE")?,
        })
    }

    pub fn set(&mut self, slot: u32, image: &[u8]) -> Result<(), MapError> {
        // The image first, then the number that says in which map it is: a program that reads the old number still finds
        // the old image.
        let map = if image.len() <= IMAGE_SIZES[0] {
            put(&mut self.small, "IMAGES_SMALL", slot, image)?;
            1
        } else if image.len() <= IMAGE_SIZES[1] {
            put(&mut self.medium, "IMAGES_MEDIUM", slot, image)?;
            2
        } else if image.len() <= IMAGE_SIZES[2] {
            put(&mut self.large, "IMAGES_LARGE", slot, image)?;
            3
        } else {
            let reason = format!("an image of {} bytes is larger than {}", image.len(), IMAGE_SIZES[2]);
            return Err(MapError::new("IMAGES_LARGE", "write", reason));
        };
        self.slots.set(slot, map, 0).map_err(|error| MapError::new("SLOTS", "write", chain(&error)))
    }

    pub fn clear(&mut self, slot: u32) -> Result<(), MapError> {
        self.slots.set(slot, 0, 0).map_err(|error| MapError::new("SLOTS", "write", chain(&error)))
    }
}

fn put<const SIZE: usize>(
    outer: &mut Outer<SIZE>,
    name: &'static str,
    slot: u32,
    image: &[u8],
) -> Result<(), MapError> {
    let mut padded = vec![0; SIZE];
    padded[..image.len()].copy_from_slice(image);
    let value: Box<[u8; SIZE]> = padded.into_boxed_slice().try_into().expect("the vector was made with this length");
    let write = |error: aya::maps::MapError| MapError::new(name, "write", chain(&error));
    let mut inner = Inner::<SIZE>::create(1, 0).map_err(write)?;
    inner.set(0, *value, 0).map_err(write)?;
    outer.set(slot, &inner, 0).map_err(write)
}

fn open<T: TryFrom<aya::maps::Map>>(object: &mut Ebpf, name: &'static str) -> Result<T, MapError>
where
    T::Error: std::fmt::Display,
{
    let map = object.take_map(name).ok_or_else(|| MapError::new(name, "open", "the object has no such map"))?;
    T::try_from(map).map_err(|error| MapError::new(name, "open", error))
}
