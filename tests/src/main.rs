//! The scenarios: what agent-monitor promises, staged for real against the daemon on a running kernel.
//!
//! Runs as root on a machine of its own (`cargo xtask vm`), with `agent-monitor` in `PATH`. Nothing here knows how the
//! product works inside: it is seen through its command line, its control socket, its audit log and its metrics.

mod harness;
mod scenario;
mod trigger;
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        // What runs inside an agent.
        Some("trigger") => trigger::serve(),
        Some("once") => trigger::once(arguments.get(1..).unwrap_or_default()),
        _ => harness::run::run(&arguments),
    }
}
