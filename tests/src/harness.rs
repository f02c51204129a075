//! What the scenarios stand on: the daemon, agents, the processes in them, and the records.

pub mod cgroup;
pub mod changes;
pub mod control;
pub mod cycle;
pub mod daemon;
pub mod mount;
pub mod policy;
pub mod process;
pub mod records;
pub mod run;
pub mod scene;
pub mod terminal;
pub mod wait;

pub use cycle::{Cycle, builtin, capability, privilege, record};
pub use mount::Mount;
pub use process::Process;
pub use run::{Group, Scenario, skip};
pub use scene::Scene;
pub use terminal::Terminal;

/// How a scenario ended: an error is a failure, or a skip (see [`run::skip`]).
pub type Outcome = anyhow::Result<()>;

/// `EACCES`: what every denial returns.
pub const EACCES: i32 = libc::EACCES;
/// `EPERM`: what the kernel makes of a denied capability.
pub const EPERM: i32 = libc::EPERM;
