//! The control socket from a client's side, with an owner that answers from memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::api::{Agent, ApplyPolicy, Bound, ChangedPolicy, CreateAgent, Policy, Refusal, Request, Status};
use super::client::{Client, ClientError};
use super::{Limits, Listeners, Lock, RequestTotals, control_router, serve};

struct Fixture {
    socket: PathBuf,
    client: Client,
    totals: Arc<RequestTotals>,
    _stop: watch::Sender<bool>,
}

async fn fixture(name: &str, clients: usize) -> Fixture {
    let socket = std::env::temp_dir().join(format!("agent-monitor-{}-{name}/c.sock", std::process::id()));
    let lock = Lock::take(&socket).expect("nobody else has it");
    let listeners = Listeners::bind(&lock, &socket, None).await.expect("can be bound");
    let (control, _, _) = listeners.into_parts();
    let (requests, mut asked) = mpsc::channel(8);
    let totals = Arc::new(RequestTotals::default());
    let (stop, stopped) = watch::channel(false);
    let limits = Limits { clients, head: Duration::from_secs(1), lifetime: None };
    tokio::spawn(serve(control, control_router(requests, totals.clone()), limits, totals.clone(), stopped));
    tokio::spawn(async move {
        let _lock = lock;
        while let Some(request) = asked.recv().await {
            match request {
                Request::Status(answer) => drop(answer.send(Status { node_name: "n".into(), ..Status::default() })),
                Request::Create(request, answer) => {
                    let refused = Err(Refusal::Invalid("policy is missing".into()));
                    let agent = |policy| Agent { id: "a".into(), policy, ..Agent::default() };
                    let renewed = request.ttl_seconds == Some(2);
                    let made = request.policy.map(|policy| Bound { renewed, agent: agent(policy) });
                    drop(answer.send(made.map_or(refused, Ok)));
                }
                Request::ApplyPolicy(name, body, answer) => {
                    let policy = Policy { name, source: Some(body.path), ..Policy::default() };
                    let change = if body.text.is_empty() { "unchanged" } else { "loaded" }.to_owned();
                    drop(answer.send(Ok(ChangedPolicy { change, policy, agents_emptied: 0 })));
                }
                Request::DeletePolicy(name, answer) => {
                    drop(answer.send(Err(Refusal::Conflict(format!("the policy {name} is a file")))));
                }
                Request::Agent(id, answer) => drop(answer.send(Err(Refusal::NotFound(format!("no agent {id}"))))),
                Request::Follow(_, answer) => {
                    let (lines, follower) = mpsc::channel(4);
                    drop(answer.send(Ok(follower)));
                    for line in ["one\n", "two\n"] {
                        drop(lines.send(line.to_owned()).await);
                    }
                }
                _ => {}
            }
        }
    });
    Fixture { client: Client::new(&socket), socket, totals, _stop: stop }
}

async fn raw(fixture: &Fixture, request: &str) -> String {
    let mut stream = UnixStream::connect(&fixture.socket).await.expect("is served");
    stream.write_all(request.as_bytes()).await.expect("is read");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("ends in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(body: &str) -> String {
    let head = "POST /v1/agents HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn requests_reach_the_owner_and_answers_come_back() {
    let fixture = fixture("answers", 8).await;
    let status: Status = fixture.client.get("/v1/status").await.expect("is answered");
    assert_eq!(status.node_name, "n");
    let request = CreateAgent { policy: Some("p".into()), ..CreateAgent::default() };
    let agent: Agent = fixture.client.post("/v1/agents", &request).await.expect("is answered");
    assert_eq!((agent.id.as_str(), agent.policy.as_str()), ("a", "p"));
    let made = raw(&fixture, &post(r#"{"policy":"p","ttl_seconds":1}"#)).await;
    let renewed = raw(&fixture, &post(r#"{"policy":"p","ttl_seconds":2}"#)).await;
    assert!(made.starts_with("HTTP/1.1 201") && renewed.starts_with("HTTP/1.1 200"), "{made}{renewed}");
    let mut lines = fixture.client.lines("/v1/events?denied=true").await.expect("is answered");
    assert_eq!(lines.next().await.expect("no error").as_deref(), Some("one"));
    assert_eq!(lines.next().await.expect("no error").as_deref(), Some("two"));
    assert_eq!(lines.next().await.expect("no error"), None);
    assert_eq!(fixture.totals.invalid.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn policies_are_applied_and_deleted_by_their_names() {
    let fixture = fixture("policies", 8).await;
    let request = ApplyPolicy { path: "p.yaml".into(), text: "spec: {}".into() };
    let changed: ChangedPolicy = fixture.client.put("/v1/policies/a.b", &request).await.expect("is answered");
    assert_eq!((changed.policy.name.as_str(), changed.policy.source.as_deref()), ("a.b", Some("p.yaml")));
    let put = |text: &str| {
        let body = format!("{{\"path\":\"p\",\"text\":\"{text}\"}}");
        let head = "PUT /v1/policies/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
        format!("{head}content-length: {}\r\n\r\n{body}", body.len())
    };
    assert!(raw(&fixture, &put("new")).await.starts_with("HTTP/1.1 201"));
    assert!(raw(&fixture, &put("")).await.starts_with("HTTP/1.1 200"));
    let refused = fixture.client.delete::<ChangedPolicy>("/v1/policies/a").await;
    assert!(matches!(refused, Err(ClientError::Refused { status: 409, .. })), "{refused:?}");
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_is_wrong_and_counted() {
    let fixture = fixture("bad", 8).await;
    let cases = [
        (post("{"), "400", "EOF"),
        (post(r#"{"polcy":"a"}"#), "422", "polcy"),
        (post("{}"), "422", "policy is missing"),
        (post(r#"{"policy":7}"#), "422", "policy"),
        ("GET /v1/agents/a%2Fb HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "404", "no agent a/b"),
        ("GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "404", "no such path"),
        ("PUT /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "405", "method"),
        ("GET /v1/events?denied=x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "400", "denied"),
    ];
    for (index, (request, status, error)) in cases.iter().enumerate() {
        let answer = raw(&fixture, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(error), "{request}\n{answer}");
        assert!(answer.contains("{\"error\":"), "{answer}");
        assert_eq!(fixture.totals.invalid.load(Ordering::Relaxed), index as u64 + 1);
    }
    let refused = fixture.client.post::<_, Agent>("/v1/agents", &CreateAgent::default()).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: 422, .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_http_ends_the_connection_and_nothing_else() {
    let fixture = fixture("garbage", 8).await;
    raw(&fixture, "\0\x01\x02\r\n\r\n").await;
    raw(&fixture, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000))).await;
    // A head that never ends is given up.
    raw(&fixture, "GET / HTTP/1.1\r\nhost:").await;
    let status: Status = fixture.client.get("/v1/status").await.expect("is answered");
    assert_eq!(status.node_name, "n");
}

#[tokio::test]
async fn more_clients_than_the_limit_are_turned_away_and_counted() {
    let fixture = fixture("clients", 1).await;
    let holding = fixture.client.lines("/v1/events").await.expect("is answered");
    let turned_away = fixture.client.get::<Status>("/v1/status").await;
    assert!(matches!(turned_away, Err(ClientError::NoAnswer { .. })), "{turned_away:?}");
    assert_eq!(fixture.totals.too_many.load(Ordering::Relaxed), 1);
    drop(holding);
}
