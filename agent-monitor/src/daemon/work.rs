//! The daemon's work: one task that owns the node and does one thing at a time. What takes long (compiling, killing) is done
//! elsewhere and comes back as a message.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::loss::Awaited;
use super::pump::Notice;
use super::readiness::UNBOUND;
use super::restore::Roots;
use super::serve::{Background, Daemon};
use super::signals::Signals;
use super::watch::{CgroupWatch, watch_policies};
use super::{misses, requests};
use crate::bind::Origin;
use crate::control::{Request, api};

/// How often counters that nobody tells of are looked at.
const TICK: Duration = Duration::from_secs(1);

impl Daemon {
    /// Works until a signal ends it.
    pub async fn work(
        &mut self,
        mut signals: Signals,
        mut requests: mpsc::Receiver<Request>,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut done: mpsc::Receiver<Background>,
    ) {
        let (changed, mut changes) = mpsc::channel(1);
        let (made, mut remade) = mpsc::channel(1);
        // Kept, so that what can't be watched does not end the waiting for its changes at once.
        let _kept = (changed.clone(), made.clone());
        self.watch(changed, made);
        let mut progress = self.node.stream.progress();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut misses = interval(misses::EVERY);
        misses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(request) = requests.recv() => requests::answer(self, request),
                Some(notice) = notices.recv() => self.notice(notice),
                Some(done) = done.recv() => self.go_on(done),
                Some(()) = changes.recv() => self.reload(),
                Some(()) = remade.recv() => self.check_configured(),
                Ok(()) = progress.changed() => {}
                _ = tick.tick() => self.tick(),
                _ = misses.tick() => self.check_misses(),
                _ = signals.hangup.recv() => {
                    self.reload();
                    self.reopen();
                }
                () = signals.stop.asked() => break,
            }
            self.settle();
            self.note_expired();
            self.node.write();
        }
    }

    /// Has changes of the policy directory told, and those where the cgroups of the configuration are made.
    fn watch(&mut self, changed: mpsc::Sender<()>, made: mpsc::Sender<()>) {
        match watch_policies(self.config.policies_dir.clone(), changed) {
            Ok(trouble) => self.policies_watch = trouble,
            Err(error) => {
                let directory = self.config.policies_dir.display();
                let why =
                    format!("the policy directory {directory} can't be watched: {error}; send SIGHUP after a change");
                tracing::error!("{why}");
                self.lasting.insert(why);
            }
        }
        if !self.config.agents.is_empty() {
            let watch = CgroupWatch::start(made);
            let watch = watch
                .inspect_err(|error| tracing::warn!(%error, "cannot watch cgroups: they are looked at every second"));
            self.cgroup_watch = watch.ok();
            self.check_configured();
        }
    }

    /// Goes on with what took long.
    fn go_on(&mut self, done: Background) {
        match done {
            Background::Emptied(number, killed) => self.emptied(number, killed),
            Background::Read(read) => self.take_read(read),
            Background::Passed(awaited) if self.node.is_at_checkpoint() => {
                self.unsettled.extend(awaited.iter().map(Awaited::number));
            }
            Background::Passed(awaited) => self.unsettled.extend(self.node.tell_missing(&awaited)),
            Background::StraysPassed => self.node.strays_passed(),
            Background::Configured(index, policy) => self.finish_configured(index, policy),
            Background::Compiled(compiled) => {
                let (request, policy, answer) = *compiled;
                requests::finish_creating(self, request, policy, answer);
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            // A number may have become an agent's since: see `renumber`.
            Notice::Superfluous(number) if self.node.directory.table().get(number).is_some() => {}
            Notice::Superfluous(number) => {
                if let Err(error) = self.node.programs.remove_agent(number) {
                    tracing::warn!(%error, "cannot remove counters that no agent needs");
                }
            }
            Notice::Released(cgroup) => {
                let agent = self.node.directory.table().by_cgroup(cgroup).map(|agent| (agent.number, agent.origin));
                if let Some((number, origin)) = agent {
                    self.node.leave(number, "exited");
                    if origin == Origin::Bound {
                        self.check_configured();
                    }
                }
            }
            Notice::BindingLost(cgroup) => {
                tracing::error!(cgroup, "a cgroup could not be bound; everything is denied in it");
                self.lasting.insert(UNBOUND.to_owned());
                self.refresh();
            }
        }
    }

    fn emptied(&mut self, number: u32, killed: Result<bool, String>) {
        match killed {
            Ok(killed) => {
                if let Some((_, found)) = self.ending.get_mut(&number) {
                    *found = killed;
                }
                self.node.leave(number, "exited");
            }
            Err(error) => {
                tracing::error!(error, "cannot end an agent");
                if let Some((Some(answer), _)) = self.ending.remove(&number) {
                    let _ = answer.send(Err(api::Refusal::Failed(format!("cannot end the agent: {error}"))));
                }
            }
        }
    }

    /// Takes leave of agents, and answers who waits for it.
    fn settle(&mut self) {
        for (agent, counts) in self.node.settle() {
            if agent.origin == Origin::Made
                && let Some(path) = agent.cgroup.as_deref()
                && let Err(error) = self.node.directory.hierarchy.remove(path)
            {
                tracing::warn!(%error, cgroup = agent.shown(), "cannot remove the cgroup of an agent that is gone");
            }
            if let Some((Some(answer), killed)) = self.ending.remove(&agent.number) {
                let shown = super::view::agent(self, &agent);
                let _ = answer.send(Ok(api::Agent { counts, killed, ..shown }));
            }
        }
    }

    /// Looks for what an earlier daemon did not write, once all is written that is in the rings now.
    fn look_for_missing(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let awaited = self.node.awaited(&std::mem::take(&mut self.unsettled));
        let (marks, background) = (self.marks.clone(), self.background.clone());
        tokio::spawn(async move {
            marks.pass().await;
            let _ = background.send(Background::Passed(awaited)).await;
        });
    }

    fn look_for_strays(&mut self) {
        let config = &self.config;
        let roots = Roots { agents: &config.agents_root, run: &config.run_root, log: &config.audit_log };
        if self.node.look_for_strays(&roots) {
            let (marks, background) = (self.marks.clone(), self.background.clone());
            tokio::spawn(async move {
                marks.pass().await;
                let _ = background.send(Background::StraysPassed).await;
            });
        }
    }

    /// Opens the audit log again, elsewhere: its disk may hang.
    fn reopen(&self) {
        let stream = self.node.stream.clone();
        tokio::spawn(async move {
            if let Err(error) = stream.reopen().await {
                tracing::error!(%error, "cannot open the audit log again; the old one stays in use");
            }
        });
    }

    fn tick(&mut self) {
        self.expire();
        self.node.stream.look(&mut self.pulse);
        self.look_for_missing();
        self.look_for_strays();
        // Nothing more has to wait while the log takes nothing: what was lost stays counted, and one look after it is enough.
        if !self.pulse.is_still() {
            self.node.check_losses();
            self.node.outbox.tick();
        }
        self.node.forget_ended();
        self.check_configured();
        self.lose_paths();
        if let Err(error) = self.node.programs.remove_unused_images() {
            tracing::warn!(%error, "cannot give back what policies took that are gone");
        }
        let last = self.node.stream.totals().last_seq.load(Ordering::Relaxed);
        let failed = self.node.state.as_ref().is_some_and(|state| state.accounts_failure().is_some());
        if (failed || last != self.checkpoint) && self.node.checkpoint() {
            self.checkpoint = last;
        }
        self.refresh();
    }
}
