//! From the rings to the stream of records. Two threads: one does nothing but empty the rings, the other makes records
//! of what it finds. Between them is a bounded queue; when it is full the rings fill up, and the kernel counts what
//! finds no room there.

mod early;
mod read;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use agent_monitor_common::binding::FIRST_KERNEL_AGENT;
use agent_monitor_common::class::{Class, Verdict, access_words};
use agent_monitor_common::event::DecodeError;
use agent_monitor_common::hook::HookId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, oneshot};

use early::Early;
use read::read;

use super::directory::{Announced, Directory, numbered};
use super::state::State;
use crate::bind::{Agent, Origin};
use crate::bpf::Rings;
use crate::enrich::{Details, Enricher};
use crate::event::{Observed, Subject, errno_word};
use crate::record::clock::Clock;
use crate::record::{AgentChange, Body, Loss, Object, Operation, Process, Record};
use crate::sink::{Entry, Stream};

/// Events that are put in order of their sequence, and turned into records, at once.
const BATCH: usize = 1024;
/// Events between the two threads, beside those that wait in the rings. Room for all of them is made at the start.
const QUEUE: usize = BATCH;

/// What the pump works with.
pub struct Pump {
    /// Agents and images.
    pub directory: Arc<Directory>,
    /// Describes processes.
    pub enricher: Enricher,
    /// Takes the records.
    pub stream: Stream,
    /// Takes what the node must know of.
    pub notices: mpsc::UnboundedSender<Notice>,
    /// Wakes whoever takes the repeats that the kernel counts.
    pub take_repeats: Arc<Notify>,
    /// Name of the node.
    pub node_name: Arc<str>,
    /// How much is enforced, where it is not all.
    pub enforcement: Option<String>,
    /// What a later daemon must know again.
    pub state: Option<State>,
}

/// What the node must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The kernel made counters for an agent, and the agent has another number.
    Superfluous(u32),
    /// A bound cgroup is gone.
    Released(u64),
    /// A cgroup could not be bound.
    BindingLost(u64),
}

/// What could not be decoded, or not in full.
#[derive(Debug, Default)]
pub struct Refused {
    /// Bytes that are no event.
    pub events: AtomicU64,
    /// Events whose operand has no meaning.
    pub operands: AtomicU64,
    /// Operations of agents that the kernel made and whose announcement had not come: they are told by the agent's number.
    pub unnamed: AtomicU64,
}

/// The running threads.
pub struct Running {
    stop: oneshot::Sender<()>,
    marks: mpsc::UnboundedSender<Mark>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    /// What could not be decoded.
    pub refused: Arc<Refused>,
}

/// Sets marks in what is read from the rings.
#[derive(Clone, Debug)]
pub struct Marks(mpsc::UnboundedSender<Mark>);

impl Marks {
    /// Waits until everything that is in the rings now is written. Waits for ever once events are not read any more.
    pub async fn pass(&self) {
        if self.set().await.is_err() {
            std::future::pending().await
        }
    }

    /// Answers once everything that is in the rings now is written, or with an error once events are not read any more.
    pub fn set(&self) -> oneshot::Receiver<()> {
        let (mark, passed) = oneshot::channel();
        // One that can't be sent is dropped, which is the error.
        let _ = self.0.send(mark);
        passed
    }
}

impl Running {
    /// Sets marks in what is read.
    pub fn marks(&self) -> Marks {
        Marks(self.marks.clone())
    }

    /// Empties the rings once more and waits until all of it has been handed to the stream. Blocks the thread.
    pub fn stop(self) {
        let _ = self.stop.send(());
        if self.reader.join().is_err() || self.writer.join().is_err() {
            tracing::error!("a thread that reads events has panicked");
        }
    }
}

impl Pump {
    /// Starts the threads. `rings` were taken inside `runtime`, which the reading thread then owns.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self, rings: Rings, runtime: Runtime) -> io::Result<Running> {
        let (events, queue) = sync_channel(QUEUE);
        let (stop, stopped) = oneshot::channel();
        let (marks, marked) = mpsc::unbounded_channel();
        let refused = Arc::new(Refused::default());
        let (counted, wake) = (refused.clone(), self.take_repeats.clone());
        let reader = thread::Builder::new().name("rings".to_owned()).spawn(move || {
            runtime.block_on(read(rings, &events, stopped, marked, &wake));
        })?;
        let writer = thread::Builder::new().name("events".to_owned()).spawn(move || {
            Writer { pump: self, clock: Clock::now(), refused: counted, early: Early::default(), marks: Vec::new() }
                .run(&queue);
        })?;
        Ok(Running { stop, marks, reader, writer, refused })
    }
}

type Decoded = Result<Observed, DecodeError>;
type Mark = oneshot::Sender<()>;

/// What goes from one thread to the other.
enum Item {
    Event(Decoded),
    /// To be answered when all before it is written.
    Mark(Mark),
}

struct Writer {
    pump: Pump,
    clock: Clock,
    refused: Arc<Refused>,
    early: Early,
    /// Marks that have come, and when.
    marks: Vec<(Instant, Mark)>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Item>) {
        loop {
            let wait = if self.early.is_empty() { Duration::MAX } else { early::PATIENCE };
            let first = match queue.recv_timeout(wait) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut batch = Vec::new();
            for item in first.into_iter().chain(queue.try_iter().take(BATCH)) {
                match item {
                    Item::Event(event) => batch.push(event),
                    Item::Mark(mark) => {
                        self.take(std::mem::take(&mut batch));
                        self.marks.push((Instant::now(), mark));
                    }
                }
            }
            self.take(batch);
            let due = self.early.take_due();
            self.write(&due);
            self.pass_marks();
        }
        let all = self.early.take_all();
        self.write(&all);
        self.pass_marks();
    }

    /// Passes on the marks before which nothing waits any more for the announcement of its agent.
    fn pass_marks(&mut self) {
        let early = &self.early;
        for (_, mark) in self.marks.extract_if(.., |(since, _)| !early.has_since(*since)) {
            self.pump.stream.mark_blocking(mark);
        }
    }

    /// Writes a batch but for what comes before the announcement of its agent.
    fn take(&mut self, batch: Vec<Decoded>) {
        let directory = self.pump.directory.clone();
        let is_known = |number: u32| directory.table().get(number).is_some();
        let batch = self.early.sort(batch, is_known);
        self.write(&batch);
    }

    fn write(&self, batch: &[Decoded]) {
        if batch.is_empty() {
            return;
        }
        // Within a batch a process is looked up once; later it may have executed something else.
        let mut described = HashMap::new();
        let mut records = Vec::with_capacity(batch.len());
        let mut notices = Vec::new();
        let (mut bad_events, mut bad_operands, mut unnamed) = (0, 0, 0);
        for entry in batch {
            let Ok(event) = entry else {
                bad_events += 1;
                continue;
            };
            match event.subject() {
                Subject::Operation => match self.operation(event, &mut described) {
                    Some((record, Some(agent))) if agent.origin == Origin::Test => note_test(&record, &agent),
                    Some((record, agent)) => {
                        // Who left the table before this event came, or was never in it.
                        unnamed += u64::from(agent.is_none() && event.header.agent >= FIRST_KERNEL_AGENT);
                        let stranger = || self.pump.directory.stranger(event.header.agent);
                        let tally = Some(agent.map_or_else(stranger, |agent| agent.tally));
                        records.push(Entry { record, tally });
                    }
                    None => bad_operands += 1,
                },
                Subject::CgroupMade { cgroup, parent } => match self.announce(event, cgroup, parent) {
                    Announced::New(agent) => {
                        records.push(Entry { record: self.started(event, &agent), tally: Some(agent.tally) });
                    }
                    Announced::Known => {}
                    Announced::Superfluous => notices.push(Notice::Superfluous(event.header.agent)),
                },
                Subject::CgroupReleased { cgroup } => notices.push(Notice::Released(cgroup)),
                Subject::BindingLost { cgroup } => notices.push(Notice::BindingLost(cgroup)),
            }
        }
        self.refused.events.fetch_add(bad_events, Ordering::Relaxed);
        self.refused.operands.fetch_add(bad_operands, Ordering::Relaxed);
        self.refused.unnamed.fetch_add(unnamed, Ordering::Relaxed);
        if bad_events + bad_operands > 0 {
            records.push(self.loss(bad_events + bad_operands).into());
        }
        self.pump.stream.write_blocking(records);
        for notice in notices {
            let _ = self.pump.notices.send(notice);
        }
    }

    /// A later daemon must know the agent by the name by which it is told of now.
    fn announce(&self, event: &Observed, cgroup: u64, parent: u64) -> Announced {
        let note = |agent: &Agent| {
            if let Some(state) = &self.pump.state {
                state.clone().put_agent(agent);
            }
        };
        self.pump.directory.announce(event, cgroup, parent, note)
    }

    fn operation(
        &self,
        event: &Observed,
        described: &mut HashMap<(u32, u64), Option<Details>>,
    ) -> Option<(Record, Option<Agent>)> {
        let header = &event.header;
        let object = Object::from_operand(event.class, &event.object, &event.new_object, header.value).ok()?;
        let agent = self.pump.directory.table().get(header.agent).cloned();
        let numbered = || Arc::new(numbered(header.agent, header.cgroup));
        let identity = agent.as_ref().map_or_else(numbered, |agent| agent.identity.clone());
        let process = (header.pid, header.start_boot_ns);
        let details = described.entry(process).or_insert_with(|| self.pump.enricher.describe(process.0, process.1));
        let details = details.clone().unwrap_or_default();
        let words = access_words(event.class).iter().filter(|(_, bit)| header.access & bit != 0);
        let operation = Operation {
            class: event.class.name().to_owned(),
            operation: event.hook.row().name.to_owned(),
            access: words.map(|(word, _)| (*word).to_owned()).collect(),
            verdict: event.verdict.name().to_owned(),
            reason: event.reason_text.clone(),
            errno: errno_word(header.errno),
            signal: (event.hook == HookId::SysEnter && event.verdict == Verdict::Deny).then(|| "SIGKILL".to_owned()),
            mode: agent.as_ref().map_or("enforce", |agent| agent.mode.name()).to_owned(),
            enforcement: self.pump.enforcement.clone(),
            object,
            policy: self.pump.directory.decided_by(event),
            agent: identity,
            process: Process {
                exec_id: self.exec_id(header.start_boot_ns, header.pid),
                pid: header.pid,
                tid: header.tid,
                uid: header.uid,
                binary: details.binary,
                arguments: details.arguments,
                cwd: details.cwd,
                start_time: self.clock.at(header.start_boot_ns),
                parent_exec_id: self.exec_id(header.parent_start_boot_ns, header.parent_pid),
            },
            pod: None,
            count: event.count,
            first_time: event.first_ns.map(|first| self.clock.at(first)),
        };
        Some((self.record(header.boot_ns, Body::Operation(Box::new(operation))), agent))
    }

    fn started(&self, event: &Observed, agent: &Agent) -> Record {
        let change = AgentChange {
            action: "started".to_owned(),
            mode: agent.mode.name().to_owned(),
            policy: self.pump.directory.policy(agent.slot),
            agent: agent.identity.clone(),
            expires: None,
            counts: None,
        };
        self.record(event.header.boot_ns, Body::Agent(Box::new(change)))
    }

    fn loss(&self, count: u64) -> Record {
        let after_seq = Some(self.pump.stream.totals().last_seq.load(Ordering::Relaxed));
        let loss = Loss {
            stage: "decode".to_owned(),
            reason: "not_an_event".to_owned(),
            count,
            after_seq,
            before_seq: None,
            ..Loss::default()
        };
        self.record(crate::record::clock::boot_ns(), Body::Loss(loss))
    }

    fn record(&self, boot_ns: u64, body: Body) -> Record {
        Record { time: self.clock.at(boot_ns), seq: None, node_name: self.pump.node_name.clone(), body }
    }

    /// The same form as Tetragon's, so that the two can be joined.
    fn exec_id(&self, start_boot_ns: u64, pid: u32) -> String {
        BASE64.encode(format!("{}:{start_boot_ns}:{pid}", self.pump.node_name))
    }
}

/// The self-test gets no records, but its denials have come as far as the others.
fn note_test(record: &Record, agent: &Agent) {
    if let Body::Operation(operation) = &record.body
        && operation.verdict == Verdict::Deny.name()
        && let Some(class) = Class::from_name(&operation.class)
    {
        agent.tally.add_denied(class, operation.count, true);
    }
}
