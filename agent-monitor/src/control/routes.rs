//! The routes of the control socket and of the address for metrics, and what all of them share: who may ask, how long an
//! answer may take, what a refusal looks like.

pub mod paths;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::api::{Problem, Refusal, Request};
use super::body::BODY_BYTES;
use super::http::{Limits, RequestTotals};
use super::peer::Peer;

/// Longest time that a request may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the daemon is ready, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// All is enforced that should be, and recorded.
    pub ready: bool,
    /// Why it is not ready, or what is degraded.
    pub reasons: Vec<String>,
}

/// What the routes for metrics and health know.
#[derive(Clone, Debug)]
pub struct Health {
    /// Where requests go.
    pub requests: mpsc::Sender<Request>,
    /// Whether the daemon is ready.
    pub readiness: watch::Receiver<Readiness>,
}

/// What the routes of the control socket know.
#[derive(Clone)]
pub struct Control {
    requests: mpsc::Sender<Request>,
    totals: Arc<RequestTotals>,
    limits: Limits,
}

/// The paths of the control socket.
pub fn control_router(requests: mpsc::Sender<Request>, totals: Arc<RequestTotals>, limits: Limits) -> Router {
    let control = Control { requests, totals, limits };
    Router::new()
        .route("/openapi.json", get(paths::description))
        .route("/v1/status", get(paths::status))
        .route("/v1/agents", get(paths::agents).post(paths::create_agent))
        .route("/v1/agents/{id}", get(paths::agent).delete(paths::end_agent))
        .route("/v1/policies", get(paths::policies))
        .route("/v1/policies/{name}", get(paths::policy).put(paths::apply_policy).delete(paths::delete_policy))
        .route("/v1/events", get(paths::events))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path; GET /openapi.json tells those that are there"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(control.clone(), admit))
        .with_state(control)
}

/// The paths of the address for metrics.
pub fn metrics_router(health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .layer(DefaultBodyLimit::max(0))
        .with_state(health)
}

/// Lets those ask who may, and counts what is refused.
async fn admit(State(control): State<Control>, request: HttpRequest, next: Next) -> Response {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let refusal = match request.extensions().get::<Peer>() {
        Some(Peer::Root) => None,
        Some(Peer::Reader) if is_reading => None,
        Some(Peer::Reader) => Some("members of the group of `control_group` may only read (GET); ask as root"),
        Some(Peer::Other) | None => Some("only root and members of the group of `control_group` may ask here"),
    };
    if let Some(message) = refusal {
        control.totals.unauthorized.fetch_add(1, Ordering::Relaxed);
        return problem(StatusCode::FORBIDDEN, message);
    }
    let response = next.run(request).await;
    if response.status().is_client_error() {
        control.totals.invalid.fetch_add(1, Ordering::Relaxed);
    }
    response
}

async fn metrics(State(health): State<Health>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match ask(&health.requests, Request::Metrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(response) => response,
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    let readiness = health.readiness.borrow().clone();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn plain<T: Serialize>(
    requests: &mpsc::Sender<Request>,
    make: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Response {
    match ask(requests, make).await {
        Ok(answer) => Json(answer).into_response(),
        Err(response) => response,
    }
}

async fn fallible<T: Serialize>(
    control: &Control,
    make: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Request,
) -> Response {
    match ask(&control.requests, make).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(response) => response,
    }
}

/// Passes a request on and waits for its answer, for a bounded time.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    make: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Response> {
    let (answer, answered) = oneshot::channel();
    let exchange = async {
        requests.send(make(answer)).await.ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting or stopping")),
        Err(_) => Err(problem(StatusCode::GATEWAY_TIMEOUT, "the daemon did not answer in time")),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let (status, message) = match refusal {
        Refusal::Invalid(message) => (StatusCode::UNPROCESSABLE_ENTITY, message),
        Refusal::NotFound(message) => (StatusCode::NOT_FOUND, message),
        Refusal::Conflict(message) => (StatusCode::CONFLICT, message),
        Refusal::TooMany(message) => (StatusCode::TOO_MANY_REQUESTS, message),
        Refusal::Failed(message) => (StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    problem(status, message)
}

/// What is wrong with a request, before it is passed on.
pub struct Rejection(pub StatusCode, pub String);

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        problem(self.0, &self.1)
    }
}

/// A refusal.
pub fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(Problem { error: message.to_owned() })).into_response()
}
