//! A daemon without programs: it keeps agents and policies in memory, and answers as the real one would. For tests, also of
//! what is no test of ours: `cargo xtask ci --step api` sends it whatever the description allows, and what it does not.

use std::collections::BTreeMap;
use std::io::Read;

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;

use super::Limits;
use super::api::{Agent, Bound, ChangedPolicy, CreateAgent, Policy, Refusal, Request, Status};
use super::served::Served;

/// What it knows.
#[derive(Default)]
struct Fake {
    agents: BTreeMap<String, Agent>,
    policies: BTreeMap<String, Policy>,
    last: u64,
}

impl Fake {
    fn answer(&mut self, request: Request) {
        match request {
            Request::Status(answer) => {
                drop(answer.send(Status { agents: self.agents.len() as u64, ..Status::default() }))
            }
            Request::Agents(answer) => drop(answer.send(self.agents.values().cloned().collect())),
            Request::Agent(id, answer) => drop(answer.send(known(&self.agents, &id))),
            Request::Create(request, answer) => drop(answer.send(self.create(*request))),
            Request::Delete(id, answer) => {
                let ended = known(&self.agents, &id);
                self.agents.remove(&id);
                drop(answer.send(ended));
            }
            Request::Policies(answer) => drop(answer.send(self.policies.values().cloned().collect())),
            Request::Policy(name, answer) => drop(answer.send(known(&self.policies, &name))),
            Request::ApplyPolicy(name, body, answer) => {
                let policy = Policy { name: name.clone(), document: Some(body.text), ..Policy::default() };
                let change = match self.policies.insert(name, policy.clone()) {
                    None => "loaded",
                    Some(before) if before == policy => "unchanged",
                    Some(_) => "replaced",
                };
                drop(answer.send(Ok(ChangedPolicy { change: change.to_owned(), policy, agents_emptied: 0 })));
            }
            Request::DeletePolicy(name, answer) => {
                let removed = known(&self.policies, &name);
                self.policies.remove(&name);
                let changed = |policy| ChangedPolicy { change: "removed".to_owned(), policy, agents_emptied: 0 };
                drop(answer.send(removed.map(changed)));
            }
            Request::Follow(_, _, answer) => {
                let (lines, follower) = mpsc::channel(1);
                drop(lines.try_send("{}\n".to_owned()));
                drop(answer.send(Ok(follower)));
            }
            Request::Metrics(answer) => drop(answer.send(String::new())),
        }
    }

    fn create(&mut self, request: CreateAgent) -> Result<Bound, Refusal> {
        let given = request.policy.is_some() != request.documents.is_empty();
        let policy =
            request.policy.filter(|_| !given).or_else(|| request.documents.first().map(|one| one.name.clone()));
        let policy = policy.ok_or_else(|| Refusal::Invalid("give either policy or documents".to_owned()))?;
        if request.ttl_seconds.is_some() && request.cgroup.is_none() {
            return Err(Refusal::Invalid("ttl_seconds is for a cgroup".to_owned()));
        }
        self.last += 1;
        let (id, renewed) = (format!("agent-{}", self.last), request.ttl_seconds.is_some());
        let agent = Agent { id: id.clone(), policy, labels: request.labels, ..Agent::default() };
        self.agents.insert(id, agent.clone());
        Ok(Bound { renewed, agent })
    }
}

fn known<T: Clone>(all: &BTreeMap<String, T>, name: &str) -> Result<T, Refusal> {
    all.get(name).cloned().ok_or_else(|| Refusal::NotFound(format!("there is no {name}")))
}

/// Serves a fake at a control socket, and that at a port of this machine, which is printed, until standard input ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "serves until standard input ends: cargo xtask ci --step api"]
async fn serves_until_standard_input_ends() {
    let (served, mut asked) = Served::start("fake", Limits::default()).await;
    let answering = tokio::spawn(async move {
        let mut fake = Fake::default();
        while let Some(request) = asked.recv().await {
            fake.answer(request);
        }
    });
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("can be bound");
    println!("\nfake daemon at {}", tcp.local_addr().expect("is bound"));
    let to = served.socket.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = tcp.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut far = UnixStream::connect(to).await.expect("is served");
                // Either side may hang up.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
    ended.expect("does not panic").expect("standard input can be read");
    assert!(!answering.is_finished(), "what answers has panicked");
}
