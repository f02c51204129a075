//! `run` with the daemon of this node: it makes the agent, records, and takes it away again.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::oneshot;

use super::Ended;
use super::child;
use super::report::Report;
use crate::bind::Hierarchy;
use crate::cli::Run;
use crate::cmd::policy::{Word, hint};
use crate::config::Config;
use crate::control::api::{Agent, CreateAgent, Document, Status};
use crate::control::client::{Client, ClientError, Lines, encode};
use crate::daemon::compiler::{Compiler, Included};
use crate::daemon::library::read_document;
use crate::daemon::{StartError, names};
use crate::record::{Body, Record};
use crate::support::Level;

/// Longest wait for the agent's last record after the daemon has said that it is gone.
const LAST_RECORD: Duration = Duration::from_secs(20);

/// Runs the command.
pub async fn run(config: &Config, options: &Run) -> Result<Ended> {
    let client = Client::new(&config.socket);
    let hierarchy = Hierarchy::open(&config.roots.cgroup, &config.roots.proc).context("cannot use cgroups")?;
    let status: Status = client.get("/v1/status").await?;
    if status.enforcement != Level::Full.name() && !options.allow_partial {
        let message = format!(
            "the daemon of this node enforces only a part ({}): the network alone; go on with --allow-partial",
            status.enforcement
        );
        return Err(StartError::Unsupported(message).into());
    }
    let record = options.record.as_ref().map(|path| {
        let mut opened = std::fs::OpenOptions::new();
        let opened = opened.append(true).create(true).mode(0o600).open(path);
        opened.with_context(|| format!("cannot write records to {}", path.display()))
    });
    let record = record.transpose()?;
    let request = request(config, options)?;
    let agent: Agent = client.post("/v1/agents", &request).await.map_err(|error| match (&error, &request.policy) {
        (ClientError::Refused { status: 404, .. }, Some(name)) => anyhow!("{error}; {}", hint(name)),
        _ => error.into(),
    })?;
    let path = format!("/v1/agents/{}", encode(&agent.id));
    let ran = follow_and_run(&client, &hierarchy, options, &agent, record).await;
    let (ended, follower) = match ran {
        Ok((ended, follower)) => (Ok(ended), Some(follower)),
        Err(error) => (Err(error), None),
    };
    // Whatever happened: the agent must not outlive us.
    let deleted: Result<Agent, _> = client.delete(&path).await;
    let (code, pid) = ended?;
    let deleted = deleted.with_context(|| format!("cannot end the agent {}", agent.id))?;
    let follower = follower.context("the events were not followed")?;
    let report = follower.end().await?;
    Ok(Ended { code, pid, killed: deleted.killed, counts: deleted.counts, report })
}

async fn follow_and_run(
    client: &Client,
    hierarchy: &Hierarchy,
    options: &Run,
    agent: &Agent,
    record: Option<std::fs::File>,
) -> Result<((u8, u32), Follower)> {
    let lines = client.lines(&format!("/v1/events?agent={}", encode(&agent.id))).await?;
    let follower = Follower::start(lines, record);
    let cgroup = agent.cgroup.clone().context("the daemon made an agent without a cgroup")?;
    let filter = agent.filter.as_ref().context("the daemon made an agent without a filter for system calls")?;
    let mut running = child::start(&hierarchy.directory(&cgroup), filter, options).await?;
    let insist = || {
        if let Err(error) = hierarchy.kill(cgroup.as_ref()) {
            tracing::warn!(%error, "cannot kill the agent");
        }
    };
    let code = running.wait(insist).await?;
    Ok(((code, running.pid), follower))
}

fn request(config: &Config, options: &Run) -> Result<CreateAgent> {
    let mut request = CreateAgent {
        protect: options.record.as_deref().map(names).unwrap_or_default(),
        name: options.agent.name.clone(),
        variables: options.agent.variables.values(),
        labels: options.agent.labels(),
        mode: options.agent.mode.clone(),
        ..CreateAgent::default()
    };
    let file = match Word::of(&options.policy) {
        Word::Name(name) => {
            request.policy = Some(name.to_owned());
            return Ok(request);
        }
        Word::File(file) => file,
    };
    // Compiled here too: what is wrong is shown with its place, and what it includes is found beside the file.
    let compiler = Compiler::new(&config.policies_dir, Vec::new());
    let compiled = read_document(file)
        .and_then(|document| compiler.compile(document, &compiler.files, &request.variables))
        .map_err(|errors| anyhow!("cannot use the policy:\n{errors}"))?;
    for message in &compiled.messages {
        eprintln!("{message}");
    }
    request.documents.push(Document { name: String::new(), path: compiled.path, text: compiled.text });
    for Included { name, document, .. } in compiled.included {
        request.documents.push(Document { name, path: document.path, text: document.text });
    }
    Ok(request)
}

/// Reads the agent's records while the command runs.
struct Follower {
    task: tokio::task::JoinHandle<Result<Report>>,
    stop: oneshot::Sender<()>,
}

impl Follower {
    fn start(lines: Lines, record: Option<std::fs::File>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { task: tokio::spawn(read(lines, record, stopped)), stop }
    }

    /// Reads up to the agent's last record.
    async fn end(self) -> Result<Report> {
        let _ = self.stop.send(());
        self.task.await.context("reading the events panicked")?
    }
}

async fn read(mut lines: Lines, mut file: Option<std::fs::File>, mut stopped: oneshot::Receiver<()>) -> Result<Report> {
    let mut report = Report::default();
    let mut limit = None;
    loop {
        let patience = async {
            match limit {
                Some(limit) => tokio::time::sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        let line = tokio::select! {
            line = lines.next() => line,
            _ = &mut stopped, if limit.is_none() => {
                limit = Some(tokio::time::Instant::now() + LAST_RECORD);
                continue;
            }
            () = patience => bail!("the daemon did not send the agent's last record; what it sent until now is lost"),
        };
        let Some(line) = line.context("the daemon broke off the events")? else {
            bail!("the daemon ended the events before the agent's last record");
        };
        if let Some(file) = &mut file {
            writeln!(file, "{line}").context("cannot write a record")?;
        }
        let record = Record::parse(&line).context("the daemon sent what is no record")?;
        report.add(&record);
        if matches!(&record.body, Body::Agent(change) if matches!(change.action.as_str(), "exited" | "unbound")) {
            return Ok(report);
        }
    }
}
