//! What was counted for one agent.

use std::collections::BTreeMap;

use agent_monitor_common::class::{CLASSES, Class};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the kernel and the monitor counted for one agent: `denied` is the sum of `written`, `folded` and `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    /// Operations denied.
    pub denied: u64,
    /// Operations that enforcing would have denied.
    pub audited: u64,
    /// Operations that could not be decided.
    pub faults: u64,
    /// Denials that have a record of their own: records.
    pub written: u64,
    /// Denials that these records count in addition.
    #[serde(default)]
    pub folded: u64,
    /// Denials that did not become part of a record: no room in the ring, or refused by the decoder.
    pub lost: u64,
    /// The same of each class of which something was denied.
    #[serde(default, skip_serializing_if = "Classes::is_empty")]
    #[schema(value_type = BTreeMap<String, ClassCounts>)]
    pub classes: Classes,
}

/// What was counted of one class. While the agent lives, what is in none of the last three is still on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClassCounts {
    /// Operations denied.
    pub denied: u64,
    /// Records of them.
    pub written: u64,
    /// Denials that these count in addition.
    pub folded: u64,
    /// Denials that are in no record; known at the agent's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// By class, as a map from the names of the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(pub [ClassCounts; CLASSES]);

impl Classes {
    fn is_empty(&self) -> bool {
        self.0.iter().all(|counts| counts.denied == 0)
    }
}

impl Serialize for Classes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = Class::ALL.iter().zip(self.0).filter(|(_, counts)| counts.denied > 0);
        serializer.collect_map(named.map(|(class, counts)| (class.name(), counts)))
    }
}

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut classes = Self::default();
        for (name, counts) in BTreeMap::<String, ClassCounts>::deserialize(deserializer)? {
            // A class of a later version is counted in the sums.
            if let Some(class) = Class::from_name(&name) {
                classes.0[class as usize] = counts;
            }
        }
        Ok(classes)
    }
}
