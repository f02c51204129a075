//! The paths of the control socket. What stands above each is its line in the description, see `openapi`.

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Control, Rejection, ask, fallible, plain, problem, refused};
use crate::control::api::{
    Agent, ApplyPolicy, Bound, ChangedPolicy, CreateAgent, Follow, Policy, Problem, Request, Status,
};
use crate::control::peer::Peer;
use crate::control::stall::Patience;
use crate::control::{body, openapi};

/// This description.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::TEXT.as_str()).into_response()
}

/// The last part of a path.
pub type Name = Result<Path<String>, PathRejection>;

/// The name.
fn named(name: Name) -> Result<String, Rejection> {
    name.map(|Path(name)| name).map_err(|rejection| Rejection(rejection.status(), rejection.body_text()))
}

/// What is enforced on this node now.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub async fn status(State(control): State<Control>) -> Response {
    plain(&control.requests, Request::Status).await
}

/// All agents.
#[utoipa::path(get, path = "/v1/agents", responses((status = 200, body = Vec<Agent>)))]
pub async fn agents(State(control): State<Control>) -> Response {
    plain(&control.requests, Request::Agents).await
}

/// One agent.
#[utoipa::path(get, path = "/v1/agents/{id}", params(("id" = String, Path, description = "Id of the agent")), responses((status = 200, body = Agent)))]
pub async fn agent(State(control): State<Control>, id: Name) -> Response {
    match named(id) {
        Ok(id) => fallible(&control, |answer| Request::Agent(id, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

/// Makes an agent, or binds a cgroup that is there.
#[utoipa::path(post, path = "/v1/agents", request_body = CreateAgent, responses((status = 201, description = "The agent is made, or the cgroup bound", body = Agent), (status = 200, description = "The cgroup was bound for a time, which begins anew", body = Agent), (status = 404, description = "There is no such policy or cgroup", body = Problem)))]
pub async fn create_agent(State(control): State<Control>, request: HttpRequest) -> Response {
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

/// Ends an agent: one that was made is killed and its cgroup removed, one that was bound is unbound.
#[utoipa::path(delete, path = "/v1/agents/{id}", params(("id" = String, Path, description = "Id of the agent")), responses((status = 200, description = "Its last record is written", body = Agent), (status = 409, description = "It was not made by request, or is ending already", body = Problem)))]
pub async fn end_agent(State(control): State<Control>, id: Name) -> Response {
    match named(id) {
        Ok(id) => fallible(&control, |answer| Request::Delete(id, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

/// All policies.
#[utoipa::path(get, path = "/v1/policies", responses((status = 200, body = Vec<Policy>)))]
pub async fn policies(State(control): State<Control>) -> Response {
    plain(&control.requests, Request::Policies).await
}

/// One policy, with its document.
#[utoipa::path(get, path = "/v1/policies/{name}", params(("name" = String, Path, description = "Name of the policy")), responses((status = 200, body = Policy)))]
pub async fn policy(State(control): State<Control>, name: Name) -> Response {
    match named(name) {
        Ok(name) => fallible(&control, |answer| Request::Policy(name, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

/// Puts a document in force, and keeps it.
#[utoipa::path(put, path = "/v1/policies/{name}", params(("name" = String, Path, description = "Name of the policy, as its document gives it")), request_body = ApplyPolicy, responses((status = 201, description = "There was none of this name", body = ChangedPolicy), (status = 200, description = "It is replaced or unchanged", body = ChangedPolicy), (status = 429, description = "Too many changes wait", body = Problem)))]
pub async fn apply_policy(State(control): State<Control>, name: Name, request: HttpRequest) -> Response {
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

/// Deletes a policy that was applied.
#[utoipa::path(delete, path = "/v1/policies/{name}", params(("name" = String, Path, description = "Name of the policy")), responses((status = 200, description = "Its agents are bound to `empty`", body = ChangedPolicy), (status = 409, description = "It was not applied: it is a file or built in", body = Problem), (status = 422, description = "No policy can have this name", body = Problem), (status = 429, description = "Too many changes wait", body = Problem)))]
pub async fn delete_policy(State(control): State<Control>, name: Name) -> Response {
    match named(name) {
        Ok(name) => fallible(&control, |answer| Request::DeletePolicy(name, answer)).await,
        Err(rejection) => rejection.into_response(),
    }
}

/// Records from now on.
#[utoipa::path(get, path = "/v1/events", params(Follow), responses((status = 200, description = "A record a line, until one side ends it", body = String, content_type = "application/jsonl"), (status = 400, description = "The query is malformed", body = Problem), (status = 429, description = "Too many follow already", body = Problem)))]
pub async fn events(
    State(control): State<Control>,
    Extension(patience): Extension<Patience>,
    Extension(peer): Extension<Peer>,
    filter: Result<Query<Follow>, QueryRejection>,
) -> Response {
    let filter = match filter {
        Ok(Query(filter)) => filter,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    match ask(&control.requests, |answer| Request::Follow(filter, peer, answer)).await {
        Ok(Ok(lines)) => {
            patience.set(control.limits.follower);
            ([(header::CONTENT_TYPE, "application/jsonl")], Body::new(Lines(lines))).into_response()
        }
        Ok(Err(refusal)) => refused(&refusal),
        Err(response) => response,
    }
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
