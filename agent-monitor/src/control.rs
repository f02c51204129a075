//! The control socket and the address for metrics: HTTP. What is asked for is passed on as a [`Request`]; nothing here
//! knows who answers.

pub mod api;
mod body;
pub mod client;
#[cfg(test)]
mod fake;
mod http;
mod openapi;
mod peer;
mod places;
mod routes;
#[cfg(test)]
pub mod served;
mod socket;
mod stall;
#[cfg(test)]
mod tests;

pub use api::{Answer, Request};
pub use http::{Limits, RequestTotals, serve};
pub use peer::{Peer, Readers, group_id};
pub use places::Places;
pub use routes::{Health, Readiness, control_router, metrics_router};
pub use socket::{Listeners, Lock, lock_path};
