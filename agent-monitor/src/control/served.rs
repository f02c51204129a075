//! A control socket for tests, in a directory of its own that goes with it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::api::Request;
use super::client::Client;
use super::{Limits, Listeners, Lock, Readers, RequestTotals, control_router, serve};

/// A socket that is served while this is there.
pub struct Served {
    /// Where it is.
    pub socket: PathBuf,
    /// A client of it.
    pub client: Client,
    /// What its clients did.
    pub totals: Arc<RequestTotals>,
    _stop: watch::Sender<bool>,
    _lock: Lock,
}

impl Served {
    /// Serves a socket; what is asked for over it is to be answered by the caller.
    pub async fn start(name: &str, limits: Limits) -> (Self, mpsc::Receiver<Request>) {
        let socket = std::env::temp_dir().join(format!("agent-monitor-{}-{name}/c.sock", std::process::id()));
        let lock = Lock::take(&socket).expect("nobody else has it");
        let listeners = Listeners::bind(&lock, &socket, Readers::default(), None).await.expect("can be bound");
        let (control, _, _) = listeners.into_parts();
        let (requests, asked) = mpsc::channel(64);
        let totals = Arc::new(RequestTotals::default());
        let (stop, stopped) = watch::channel(false);
        let router = control_router(requests, totals.clone(), limits);
        tokio::spawn(serve(control, router, limits, totals.clone(), stopped));
        let client = Client::new(&socket);
        (Self { socket, client, totals, _stop: stop, _lock: lock }, asked)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A test that failed shall tell why, and not that this did.
        let _ = self.socket.parent().map(std::fs::remove_dir_all);
    }
}
