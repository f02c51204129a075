//! Operations as people write them: `file:read,write /etc/passwd`, `network:connect tcp:10.1.2.3:443`.

mod parse;

pub use parse::parse;

use agent_monitor_common::class::Class;
use agent_monitor_common::decide::OwnEntry;

/// An operation that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its class.
    pub class: Class,
    /// The accesses to the object.
    pub access: u16,
    /// The operand.
    pub object: Vec<u8>,
    /// The new name of a rename or link, and the accesses to it.
    pub new_object: Option<(Vec<u8>, u16)>,
    /// Whether the object is a directory (a rename is judged for all below it).
    pub directory: bool,
    /// What of the object is the process's own entry of `/proc`.
    pub own: OwnEntry,
}

/// The process id that stands for the agent's own where an object begins with `/proc/self`: the first that no process
/// can have (`PID_MAX_LIMIT` of the kernel), so that no rule means it by accident.
pub const OWN_PID: u32 = 1 << 22;
