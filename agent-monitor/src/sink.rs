//! Where records go: one stream that numbers them, writes the audit log and gives each line to the followers.
//!
//! One thread owns the order. A record gets its number when it is written; if the audit log can't take it, the number
//! is spent and a `loss` record says between which numbers what is missing, as soon as the log can be written again.

pub mod audit;
pub mod follow;
pub mod metrics;
mod stream;

pub use audit::LogOptions;
pub use stream::{Entry, Options, Outbox, Position, Pulse, Stream, Tap};
