//! Serving HTTP within limits: so many clients at once, so long for a head, a body and for taking an answer, so large a body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::peer::{Peer, Readers};
use super::places::Places;
use super::routes::problem;
use super::stall::{Patience, Stalling};

/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more are told so, and closed. A quarter is root's alone.
    pub clients: usize,
    /// How long a client may take to send the head of a request, and how long a connection may be idle.
    pub head: Duration,
    /// How long a body may take to come.
    pub body: Duration,
    /// How long a client may take nothing of its answer.
    pub answer: Duration,
    /// How long a follower of the events may take nothing: somebody may have stopped reading for a while.
    pub follower: Duration,
    /// How long a connection may last in all; `None` for those that are followed.
    pub lifetime: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 64,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            follower: Duration::from_secs(600),
            lifetime: None,
        }
    }
}

/// Largest head of a request in bytes: answered with 431.
const HEAD_BYTES: usize = 64 << 10;
/// Most headers of a request: answered with 431.
const HEADERS: usize = 100;
/// How long a client that is one too many may take to ask and to be told so.
const TURNED_AWAY: Duration = Duration::from_secs(2);

/// Longest wait at the end for answers that are under way.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Requests that were refused, for the metrics.
#[derive(Debug, Default)]
pub struct RequestTotals {
    /// Answered with a status of 400 to 499.
    pub invalid: AtomicU64,
    /// From a peer that may not ask for it: answered with 403.
    pub unauthorized: AtomicU64,
    /// More clients than the limit.
    pub too_many: AtomicU64,
    /// Clients that did not read their answer.
    pub stalled: AtomicU64,
}

/// Where connections come from.
pub enum Listener {
    /// The control socket: root, and who may read.
    Unix(UnixListener, Readers),
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
    let clients = match &listener {
        Listener::Unix(..) => Places::new(limits.clients),
        Listener::Tcp(_) => Places::for_all(limits.clients),
    };
    let turned_away = Places::for_all(limits.clients);
    loop {
        let connection = tokio::select! {
            connection = accept(&listener) => connection,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let peer = connection.peer();
        let (place, router, limits) = match clients.take(peer) {
            Some(place) => (place, router.clone(), limits),
            None => {
                totals.too_many.fetch_add(1, Ordering::Relaxed);
                // Where even these are too many, hanging up is all that is left.
                let Some(place) = turned_away.take(peer) else { continue };
                (place, full(clients.number(peer)), Limits { lifetime: Some(TURNED_AWAY), ..limits })
            }
        };
        let (stop, totals) = (stop.clone(), totals.clone());
        tokio::spawn(async move {
            let talking = async {
                match connection {
                    Connection::Unix(stream, peer) => {
                        talk(stream, router.layer(Extension(peer)), limits, totals, stop).await;
                    }
                    Connection::Tcp(stream) => talk(stream, router, limits, totals, stop).await,
                }
            };
            match limits.lifetime {
                Some(lifetime) => drop(tokio::time::timeout(lifetime, talking).await),
                None => talking.await,
            }
            drop(place);
        });
    }
    let _ = tokio::time::timeout(LAST_ANSWERS, clients.emptied()).await;
}

/// Answers whoever is one too many.
fn full(clients: usize) -> Router {
    Router::new().fallback(async move || {
        let message = format!("{clients} clients are connected already; try again later");
        problem(StatusCode::SERVICE_UNAVAILABLE, &message)
    })
}

enum Connection {
    Unix(tokio::net::UnixStream, Peer),
    Tcp(tokio::net::TcpStream),
}

impl Connection {
    /// Who it is of. Nobody is told from another by an address.
    fn peer(&self) -> Peer {
        match self {
            Self::Unix(_, peer) => *peer,
            Self::Tcp(_) => Peer::Other,
        }
    }
}

/// The next connection.
async fn accept(listener: &Listener) -> Connection {
    loop {
        let accepted = match listener {
            Listener::Unix(listener, readers) => listener.accept().await.map(|(stream, _)| {
                let peer = readers.peer(stream.peer_cred());
                Connection::Unix(stream, peer)
            }),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Connection::Tcp(stream)),
        };
        match accepted {
            Ok(connection) => return connection,
            Err(error) => {
                // Out of descriptors, usually: others will be closed. Trying again at once would only burn the CPU.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk<S>(stream: S, router: Router, limits: Limits, totals: Arc<RequestTotals>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = Patience::new(limits.answer);
    let io = TokioIo::new(Stalling::new(stream, patience.clone(), totals));
    let service = TowerToHyperService::new(router.layer(Extension(patience)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.max_buf_size(HEAD_BYTES).max_header_size(HEAD_BYTES).max_headers(HEADERS);
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
