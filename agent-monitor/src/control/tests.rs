//! The control socket from a client's side, with an owner that answers from memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::api::{Agent, ApplyPolicy, Bound, ChangedPolicy, CreateAgent, Policy, Refusal, Request, Status};
use super::client::ClientError;
use super::peer::Peer;
use super::served::Served;
use super::{Limits, Listeners, Lock, Readers, RequestTotals, control_router, serve};

async fn fixture(name: &str, clients: usize) -> Served {
    let short = Duration::from_millis(300);
    let limits = Limits { clients, head: Duration::from_secs(1), body: short, answer: short, ..Limits::default() };
    fixture_with(name, limits).await
}

async fn fixture_with(name: &str, limits: Limits) -> Served {
    let (served, mut asked) = Served::start(name, limits).await;
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            match request {
                Request::Status(answer) => drop(answer.send(Status { node_name: "n".into(), ..Status::default() })),
                // More than a socket holds.
                Request::Policies(answer) => {
                    let large = Policy { name: "x".repeat(8 << 20), ..Policy::default() };
                    drop(answer.send(vec![large]));
                }
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
                Request::Follow(_, _, answer) => {
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
    served
}

async fn raw(fixture: &Served, request: &str) -> String {
    let mut stream = UnixStream::connect(&fixture.socket).await.expect("is served");
    // It may be refused, and hung up on, before it is read whole.
    let _ = stream.write_all(request.as_bytes()).await;
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
        (post("").replace("content-length: 0\r\n", ""), "411", "Content-Length"),
        (post("{}").replace("content-length: 2", "content-length: 99999999"), "413", "99999999"),
        (post("{}").replace("application/json", "text/plain"), "415", "application/json"),
        (post("{}").replace("content-type: application/json\r\n", ""), "415", "application/json"),
        // The rest of the body never comes.
        (post("{").replace("content-length: 1", "content-length: 9"), "408", "did not come"),
        ("GET /v1/agents/%ff HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "400", "UTF-8"),
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
    let allowed = raw(&fixture, "PATCH /v1/policies/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let allow = allowed.lines().find_map(|line| line.to_lowercase().strip_prefix("allow: ").map(str::to_owned));
    let mut allow: Vec<String> = allow.unwrap_or_default().split(',').map(str::to_owned).collect();
    allow.sort();
    assert_eq!(allow, ["delete", "get", "head", "put"], "{allowed}");
    let refused = fixture.client.post::<_, Agent>("/v1/agents", &CreateAgent::default()).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: 422, .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_http_ends_the_connection_and_nothing_else() {
    let fixture = fixture("garbage", 8).await;
    let hostile = [
        ("\0\x01\x02\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)), "431"),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000)), "431"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)), "431"),
        // One that sends nothing at all.
        (String::new(), ""),
    ];
    for (request, status) in hostile {
        let answer = raw(&fixture, &request).await;
        let expected = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status}") };
        assert!(answer.starts_with(&expected) && answer.is_empty() == status.is_empty(), "{status}: {answer}");
    }
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
    let told = |error: &ClientError| error.to_string().contains("1 clients are connected already");
    assert!(turned_away.as_ref().is_err_and(told), "{turned_away:?}");
    assert!(matches!(turned_away, Err(ClientError::Refused { status: 503, .. })));
    assert_eq!(fixture.totals.too_many.load(Ordering::Relaxed), 1);
    drop(holding);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_given_up_and_makes_room() {
    let fixture = fixture("stalled", 1).await;
    let mut stalled = UnixStream::connect(&fixture.socket).await.expect("is served");
    stalled.write_all(b"GET /v1/policies HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("is read");
    stalled.readable().await.expect("the answer has begun");
    let answered = async {
        // One is all that there is room for: others are turned away until it is given up.
        while fixture.client.get::<Status>("/v1/status").await.is_err() {}
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("it is given up in time");
    assert_eq!(fixture.totals.stalled.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_follower_may_stop_reading_for_longer_than_others() {
    let limits = Limits { answer: Duration::ZERO, ..Limits::default() };
    let fixture = fixture_with("paused", limits).await;
    let mut lines = fixture.client.lines("/v1/events").await.expect("is answered");
    assert_eq!(lines.next().await.expect("no error").as_deref(), Some("one"));
    assert_eq!(fixture.totals.stalled.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_member_of_the_group_may_read_and_others_nothing() {
    for (peer, get, post) in
        [(Some(Peer::Root), 200, 201), (Some(Peer::Reader), 200, 403), (Some(Peer::Other), 403, 403), (None, 403, 403)]
    {
        let (requests, mut asked) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                match request {
                    Request::Status(answer) => drop(answer.send(Status::default())),
                    Request::Create(_, answer) => drop(answer.send(Ok(Bound::default()))),
                    _ => {}
                }
            }
        });
        let totals = Arc::new(RequestTotals::default());
        let mut router = control_router(requests, totals.clone(), Limits::default());
        if let Some(peer) = peer {
            router = router.layer(axum::Extension(peer));
        }
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("can be bound");
        let address = tcp.local_addr().expect("is bound");
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(serve(super::http::Listener::Tcp(tcp), router, Limits::default(), totals.clone(), stopped));
        let ask = async |request: String| {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("is served");
            stream.write_all(request.as_bytes()).await.expect("is read");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("is answered");
            answer
        };
        let read = ask("GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned()).await;
        let written = ask(self::post(r#"{"policy":"p"}"#)).await;
        assert!(read.starts_with(&format!("HTTP/1.1 {get}")), "{peer:?}: {read}");
        assert!(written.starts_with(&format!("HTTP/1.1 {post}")), "{peer:?}: {written}");
        let refused = u64::from(get == 403) + u64::from(post == 403);
        assert_eq!(totals.unauthorized.load(Ordering::Relaxed), refused, "{peer:?}");
    }
}

#[tokio::test]
async fn a_socket_for_a_group_is_its_groups_and_nobody_elses() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let socket = std::env::temp_dir().join(format!("agent-monitor-{}-group/c.sock", std::process::id()));
    let lock = Lock::take(&socket).expect("nobody else has it");
    let group = rustix::process::getgid().as_raw();
    for (readers, mode) in [(None, 0o600), (Some(group), 0o660)] {
        let readers = Readers { group: readers, proc: "/proc".into() };
        let _listeners = Listeners::bind(&lock, &socket, readers, None).await.expect("can be bound");
        let metadata = std::fs::metadata(&socket).expect("is there");
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (mode, group));
    }
    let directory = std::fs::metadata(socket.parent().expect("it has one")).expect("is there");
    assert_eq!(directory.permissions().mode() & 0o777, 0o710);
}
