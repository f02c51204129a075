//! The node: the programs in the kernel, and what they are told. All changes of bindings and images go through here, so
//! that the kernel, the directory and the records say the same.

mod binding;
mod slots;
mod tell;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use agent_monitor_common::binding::EMPTY_SLOT;
use agent_monitor_policy::Policy;
use anyhow::{Context, Result};
use tokio::sync::{Notify, oneshot};

pub use binding::{Renewal, Wanted};

use super::compiler::Compiler;
use super::directory::Directory;
use super::leave::{Late, Leaving};
use super::loss::Losses;
use super::misses::Misses;
use super::policies::{Candidate, Policies, Source};
use super::pump::Marks;
use super::restore::Roots;
use super::state::{Numbers, State};
use super::strays::Search;
use crate::bpf::Programs;
use crate::sink::{Entry, Outbox, Stream};

/// The node.
pub struct Node {
    /// The programs and their maps.
    pub programs: Programs,
    /// What everybody looks up.
    pub directory: Arc<Directory>,
    /// The policies that are loaded.
    pub policies: Policies,
    /// Takes the records.
    pub stream: Stream,
    /// The node's way into it, which never waits.
    pub outbox: Outbox,
    node_name: Arc<str>,
    /// Compiles policies for this node.
    pub compiler: Compiler,
    /// Agents on their way out.
    pub leaving: Vec<Leaving>,
    /// Those of them that have waited too long.
    pub late: Option<Late>,
    /// Sets marks in what is read; none before anything is read.
    pub marks: Option<Marks>,
    /// Whether all is counted that was counted for them: until another build is taken over from, a part is in its maps.
    pub settles: bool,
    /// Records that the stream has no room for yet.
    records: Vec<Entry>,
    /// Records that had no room there, and that no record tells of yet.
    left_out: u64,
    /// All that ever had none.
    pub records_left_out: u64,
    /// Records about policies by their action.
    pub policy_changes: [(&'static str, u64); 4],
    /// Losses that have become records.
    pub losses: Losses,
    /// What a later daemon must know again; none where there will be no later one.
    pub state: Option<State>,
    /// Numbers that were given, as they are written down.
    pub numbers: Numbers,
    /// Programs that the kernel skipped.
    pub misses: Misses,
    /// Has the repeats that the kernel counts taken now.
    pub take_repeats: Arc<Notify>,
    /// Agents of which the kernel did not get to tell.
    pub strays: Search,
    /// Agents whose last record was told, and whose counters are still there.
    pub ended: HashSet<u32>,
    /// Says when the checkpoint is written that is being written.
    pub at_checkpoint: Option<oneshot::Receiver<()>>,
    /// Those of them of which that is written down.
    pub noted: Arc<Mutex<Vec<u32>>>,
}

impl Node {
    /// A node with the built-in policy in its slot, and the agents that were taken over.
    ///
    /// # Errors
    /// The kernel refused the image, or to tell what is in its maps.
    pub fn new(
        programs: Programs,
        directory: Arc<Directory>,
        stream: Stream,
        node_name: Arc<str>,
        compiler: Compiler,
        takes_over: Option<(State, Roots<'_>)>,
    ) -> Result<Self> {
        let (state, roots) = takes_over.unzip();
        let mut node = Self {
            programs,
            directory,
            policies: Policies::default(),
            outbox: stream.outbox(),
            stream,
            node_name,
            compiler,
            leaving: Vec::new(),
            late: None,
            marks: None,
            settles: state.is_none(),
            records: Vec::new(),
            left_out: 0,
            records_left_out: 0,
            policy_changes: ["loaded", "refused", "replaced", "removed"].map(|action| (action, 0)),
            losses: Losses::default(),
            state,
            numbers: Numbers::default(),
            misses: Misses::default(),
            take_repeats: Arc::default(),
            strays: Search::Done,
            ended: HashSet::new(),
            at_checkpoint: None,
            noted: Arc::default(),
        };
        if let Some(roots) = roots {
            node.restore(&roots)?;
        }
        let empty =
            Candidate::new(&Policy::empty(), &node.compiler.protected).context("the built-in policy has no image")?;
        if !node.policies.unchanged(EMPTY_SLOT, &empty) {
            node.put(EMPTY_SLOT, Source::Builtin, Arc::new(empty))?;
        }
        Ok(node)
    }

    /// Writes down the numbers that were given.
    fn note_numbers(&mut self) {
        self.policies.note(&mut self.numbers);
        if let Some(state) = &mut self.state {
            state.put_numbers(&self.numbers);
        }
    }

    /// Takes note that a number is given to an agent. Many are written down as given at once.
    fn note_number(&mut self, number: u32) {
        const AT_ONCE: u32 = 256;
        if number >= self.numbers.next_agent {
            self.numbers.next_agent = number.saturating_add(AT_ONCE);
            self.note_numbers();
        }
    }
}
