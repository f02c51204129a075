//! The paths of the control socket and of the address for metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request as HttpRequest, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::api::{ApplyPolicy, Bound, CreateAgent, Follow, Problem, Refusal, Request};
use super::body::{self, BODY_BYTES};
use super::http::{Limits, RequestTotals};
use super::peer::Peer;
use super::stall::Patience;

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

#[derive(Clone)]
struct Control {
    requests: mpsc::Sender<Request>,
    totals: Arc<RequestTotals>,
    limits: Limits,
}

/// The paths of the control socket.
pub fn control_router(requests: mpsc::Sender<Request>, totals: Arc<RequestTotals>, limits: Limits) -> Router {
    let control = Control { requests, totals, limits };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/agents", get(agents).post(create))
        .route("/v1/agents/{id}", get(agent).delete(delete))
        .route("/v1/policies", get(policies))
        .route("/v1/policies/{name}", get(policy).put(apply_policy).delete(delete_policy))
        .route("/v1/events", get(events))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path; see docs/events.md for those that are there"))
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

/// The last part of a path.
type Name = Result<Path<String>, PathRejection>;

/// The name.
fn named(name: Name) -> Result<String, Rejection> {
    name.map(|Path(name)| name).map_err(|rejection| Rejection(rejection.status(), rejection.body_text()))
}

async fn status(State(control): State<Control>) -> Response {
    plain(&control.requests, Request::Status).await
}

async fn agents(State(control): State<Control>) -> Response {
    plain(&control.requests, Request::Agents).await
}

async fn agent(State(control): State<Control>, id: Name) -> Response {
    match named(id) {
        Ok(id) => fallible(&control, |answer| Request::Agent(id, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

async fn create(State(control): State<Control>, request: HttpRequest) -> Response {
    let body: CreateAgent = match body::read(request, control.limits.body).await {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    match ask(&control.requests, |answer| Request::Create(Box::new(body), answer)).await {
        Ok(Ok(Bound { renewed, agent })) => {
            let status = if renewed { StatusCode::OK } else { StatusCode::CREATED };
            (status, Json(agent)).into_response()
        }
        Ok(Err(refusal)) => refused(&refusal),
        Err(response) => response,
    }
}

async fn delete(State(control): State<Control>, id: Name) -> Response {
    match named(id) {
        Ok(id) => fallible(&control, |answer| Request::Delete(id, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

async fn policies(State(control): State<Control>) -> Response {
    plain(&control.requests, Request::Policies).await
}

async fn policy(State(control): State<Control>, name: Name) -> Response {
    match named(name) {
        Ok(name) => fallible(&control, |answer| Request::Policy(name, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

async fn apply_policy(State(control): State<Control>, name: Name, request: HttpRequest) -> Response {
    let name = match named(name) {
        Ok(name) => name,
        Err(rejection) => return rejection.into_response(),
    };
    let body: ApplyPolicy = match body::read(request, control.limits.body).await {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    match ask(&control.requests, |answer| Request::ApplyPolicy(name, Box::new(body), answer)).await {
        Ok(Ok(answer)) if answer.change == "loaded" => (StatusCode::CREATED, Json(answer)).into_response(),
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(refusal)) => refused(&refusal),
        Err(response) => response,
    }
}

async fn delete_policy(State(control): State<Control>, name: Name) -> Response {
    match named(name) {
        Ok(name) => fallible(&control, |answer| Request::DeletePolicy(name, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

async fn events(
    State(control): State<Control>,
    Extension(patience): Extension<Patience>,
    filter: Result<Query<Follow>, QueryRejection>,
) -> Response {
    let filter = match filter {
        Ok(Query(filter)) => filter,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    match ask(&control.requests, |answer| Request::Follow(filter, answer)).await {
        Ok(Ok(lines)) => {
            patience.set(control.limits.follower);
            ([(header::CONTENT_TYPE, "application/jsonl")], Body::new(Lines(lines))).into_response()
        }
        Ok(Err(refusal)) => refused(&refusal),
        Err(response) => response,
    }
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

/// A body of lines that ends when the sender of the lines is gone.
struct Lines(mpsc::Receiver<String>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| Some(Ok(Frame::data(Bytes::from(line?)))))
    }
}
