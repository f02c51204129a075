//! What must not be blocked: the work of a coding agent with a distribution's own programs, each under a shipped policy.
//! Each job ends with status 0, its result is there, and nothing was denied but what is listed here with the reason.
//!
//! Runs on a machine with the programs of a real one: `cargo xtask vm --root host ... -- /root/scenarios --group work`.

mod compilers;
mod git;
mod job;
mod packages;
mod scripts;
mod shipping;
mod tls;

use crate::harness::Scenario;

/// All of them, by file.
pub const ALL: &[&[Scenario]] =
    &[compilers::ALONE, shipping::ALONE, compilers::ALL, git::ALL, packages::ALL, scripts::ALL, tls::ALL];
