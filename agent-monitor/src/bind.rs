//! Agents and their cgroups: what is an agent here, and where its cgroup lies. The map in the kernel that says the same
//! to the programs is written by the daemon, not here.

pub mod cgroup;
pub mod limit;
pub mod table;
mod walk;

pub use cgroup::{Cgroup, Hierarchy, from_root, shown};
pub use limit::{Limit, Now};
pub use table::{Agent, Origin, Table};
