//! Serving HTTP within limits: so many clients at once, so long for a head, so long for an answer, so large a body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more are closed at once.
    pub clients: usize,
    /// How long a client may take to send the head of a request, and how long a connection may be idle.
    pub head: Duration,
    /// How long a connection may last in all; `None` for those that are followed.
    pub lifetime: Option<Duration>,
}

/// Longest wait at the end for answers that are under way.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Requests that were refused, for the metrics.
#[derive(Debug, Default)]
pub struct RequestTotals {
    /// Answered with a status of 400 to 499.
    pub invalid: AtomicU64,
    /// From a peer that is not root.
    pub unauthorized: AtomicU64,
    /// More clients than the limit.
    pub too_many: AtomicU64,
}

/// Where connections come from.
pub enum Listener {
    /// The control socket: root only.
    Unix(UnixListener),
    /// Metrics and health: anybody who reaches the address.
    Tcp(TcpListener),
}

/// Serves until `stop` says so, and then until the answers that are under way are sent, for a bounded time.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    totals: Arc<RequestTotals>,
    mut stop: watch::Receiver<bool>,
) {
    let clients = Arc::new(Semaphore::new(limits.clients));
    loop {
        let connection = tokio::select! {
            connection = accept(&listener, &totals) => connection,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok(permit) = clients.clone().try_acquire_owned() else {
            totals.too_many.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            let talking = async {
                match connection {
                    Connection::Unix(stream) => talk(TokioIo::new(stream), router, limits, stop).await,
                    Connection::Tcp(stream) => talk(TokioIo::new(stream), router, limits, stop).await,
                }
            };
            match limits.lifetime {
                Some(lifetime) => drop(tokio::time::timeout(lifetime, talking).await),
                None => talking.await,
            }
            drop(permit);
        });
    }
    let all = u32::try_from(limits.clients).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(LAST_ANSWERS, clients.acquire_many(all)).await;
}

enum Connection {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

/// The next connection that is let in.
async fn accept(listener: &Listener, totals: &RequestTotals) -> Connection {
    loop {
        let accepted = match listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Connection::Unix(stream)),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Connection::Tcp(stream)),
        };
        match accepted {
            Ok(Connection::Unix(stream)) if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) => {
                totals.unauthorized.fetch_add(1, Ordering::Relaxed);
            }
            Ok(connection) => return connection,
            Err(error) => {
                // Out of descriptors, usually: others will be closed. Trying again at once would only burn the CPU.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk<I>(io: I, router: Router, limits: Limits, mut stop: watch::Receiver<bool>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(64 << 10);
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            // An error is the client's: it went away, or sent what is not HTTP.
            _ = connection.as_mut() => return,
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
