//! What two builds must agree on to guard a node one after the other. A later build takes over the maps of an earlier one, so
//! their keys and values ([`crate::binding`], [`crate::counter`], [`crate::image`], [`crate::event`]) are an agreement over
//! versions.

/// Raised when a key or value of a map changes its meaning. Not for a new field at the end of a value, nor for a map with more
/// or fewer entries: these are carried over. A build refuses to take over from another layout.
pub const LAYOUT: u32 = 1;
