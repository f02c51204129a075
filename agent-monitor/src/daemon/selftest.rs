//! The test at start: that what is attached also decides. Where `bpf` is not in `lsm=` programs load, attach and never
//! run, and nothing else shows it.
//!
//! A child of ours, the canary, goes into a cgroup of its own and tries the same operations twice: first under a policy
//! that allows them, then under one that allows nothing. The policy is swapped in between, which tests that too.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use agent_monitor_common::class::Mode;
use agent_monitor_policy::{Document, NoLibrary, Options, Policy, compile};
use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::directory::Loaded;
use super::node::{Node, Wanted};
use crate::bind::{Agent, Cgroup, Origin, from_root, shown};

/// Longest wait for the canary, in all.
const LIMIT: Duration = Duration::from_secs(60);

const POLICY: &str = r#"
apiVersion: agent-monitor.dev/v1alpha1
kind: AgentPolicy
metadata: {name: selftest}
spec:
  files:
    - {allow: [all], paths: ["/**"]}
  exec:
    - {allow: ["/**"]}
  network:
    - {allow: [create], sockets: [inet]}
    - {allow: [connect, send], to: {addresses: ["127.0.0.1"], protocols: [udp]}}
"#;

/// What is tested, and whether it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `file`, `exec`, `network`, `events`.
    pub test: &'static str,
    /// Why it failed.
    pub failure: Option<String>,
}

/// Runs these tests in a cgroup below `parent`.
///
/// # Errors
/// The canary can't be started or does not answer; that says nothing about the kernel.
pub async fn run(node: &mut Node, parent: &str, tests: &[&'static str]) -> Result<Vec<Outcome>> {
    let slot = node.policies.free_slot().context("no slot is free for the policy of the self-test")?;
    let document = Document { path: "built in".to_owned(), text: POLICY.to_owned() };
    let open = compile(document, &NoLibrary, &Options::default());
    let open = open.map_err(|errors| anyhow::anyhow!("the policy of the self-test is refused: {errors}"))?.policy;
    set(node, slot, 1, &open)?;
    let wanted = Wanted { mode: Some(Mode::Enforce), ..Wanted::new(slot, Origin::Test) };
    let path = format!("{parent}/selftest-{}", super::random_name());
    let agent = node.make(&path, wanted)?;
    let outcome = tokio::time::timeout(LIMIT, judge(node, &agent, slot, tests)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the canary did not answer within {LIMIT:?}")));
    clean(node, &agent, slot).await;
    outcome.context("self-test")
}

async fn judge(node: &mut Node, agent: &Agent, slot: u32, tests: &[&'static str]) -> Result<Vec<Outcome>> {
    let mut canary = Canary::start(node, agent)?;
    let allowed = canary.round().await.context("under a policy that allows all")?;
    set(node, slot, 2, &Policy::empty())?;
    let denied = canary.round().await.context("under a policy that allows nothing")?;
    canary.child.kill().await.context("cannot end the canary")?;
    let mut outcomes = Vec::new();
    for test in tests {
        let failure = if *test == "events" {
            seen(node, agent).await
        } else {
            let word =
                |round: &BTreeMap<String, String>| round.get(*test).cloned().unwrap_or_else(|| "nothing".to_owned());
            match (word(&allowed).as_str(), word(&denied).as_str()) {
                ("allowed", "denied") => None,
                ("allowed", found) => Some(format!("an operation that must be denied was not: {found}")),
                (found, _) => Some(format!("an operation that must be allowed was not: {found}")),
            }
        };
        outcomes.push(Outcome { test, failure });
    }
    Ok(outcomes)
}

/// Whether every denial that the kernel counted has come out of it.
async fn seen(node: &mut Node, agent: &Agent) -> Option<String> {
    let mut progress = node.stream.progress();
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let counts = node.counts(agent);
        if counts.denied > 0 && counts.written + counts.folded == counts.denied {
            return None;
        }
        // Repeats wait for a second otherwise.
        node.take_repeats.notify_one();
        if counts.denied == 0 || tokio::time::timeout_at(end, progress.changed()).await.is_err() {
            return Some(format!(
                "of {} denials {} came out of the kernel",
                counts.denied,
                counts.written + counts.folded
            ));
        }
    }
}

fn set(node: &mut Node, slot: u32, generation: u64, policy: &Policy) -> Result<()> {
    let bytes = policy.image(generation, &[]).context("the policy of the self-test has no image")?.as_bytes().to_vec();
    node.directory.set_image(slot, Loaded::new(policy.name(), generation, bytes.clone().into()));
    node.programs.set_image(slot, &bytes).context("cannot load the policy of the self-test")
}

async fn clean(node: &mut Node, agent: &Agent, slot: u32) {
    let (directory, going) = (node.directory.clone(), agent.clone());
    let removed = tokio::task::spawn_blocking(move || {
        let path = going.path()?;
        directory.hierarchy.empty(path, Duration::from_secs(10))?;
        directory.hierarchy.remove(path)
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(%error, cgroup = agent.shown(), "cannot remove the cgroup of the self-test");
    }
    node.leave(agent.number, "exited");
    let mut progress = node.stream.progress();
    while node.settle().is_empty() && node.is_leaving(agent.number) {
        let _ = tokio::time::timeout(Duration::from_secs(1), progress.changed()).await;
    }
    if let Err(error) = node.programs.clear_image(slot) {
        tracing::warn!(%error, "cannot remove the policy of the self-test");
    }
    node.directory.clear_image(slot);
}

/// Whether a cgroup is one of a self-test.
pub fn is_own(path: &Path, parent: &str) -> bool {
    let below = path.strip_prefix(from_root(parent));
    below.is_ok_and(|name| name.as_os_str().as_bytes().starts_with(b"selftest-"))
}

/// Removes what a daemon left that was killed in its self-test.
pub fn remove_left(node: &mut Node, cgroup: &Cgroup, number: u32) {
    let hierarchy = node.directory.hierarchy.clone();
    let removed = hierarchy
        .kill(&cgroup.path)
        .and_then(|()| hierarchy.wait_empty(&cgroup.path, Duration::from_secs(10)))
        .and_then(|()| hierarchy.remove(&cgroup.path));
    if let Err(error) = removed {
        tracing::warn!(%error, cgroup = shown(&cgroup.path), "cannot remove the cgroup of an earlier self-test");
        return;
    }
    if let Err(error) = node.programs.unbind(cgroup.id).and_then(|()| node.programs.remove_agent(number)) {
        tracing::warn!(%error, "cannot remove what an earlier self-test left");
    }
}

/// The canary, a run of our own executable.
struct Canary {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Canary {
    fn start(node: &Node, agent: &Agent) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("canary").arg("--cgroup").arg(node.directory.hierarchy.directory(agent.path()?));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the canary")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the canary has no pipes")
        };
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    /// One try of everything: a word for each test.
    async fn round(&mut self) -> Result<BTreeMap<String, String>> {
        self.input.write_all(b"again\n").await.context("the canary is gone")?;
        let mut words = BTreeMap::new();
        loop {
            let line = self.output.next_line().await?.context("the canary ended early")?;
            match line.split_once(' ') {
                Some((test, word)) => words.insert(test.to_owned(), word.to_owned()),
                None => return Ok(words),
            };
        }
    }
}
