//! Whether all is well: everything that can be wrong is looked at here, and a change is told.

use super::serve::Daemon;
use crate::control::Readiness;
use crate::support::Level;

/// What is wrong while some cgroup could not be bound.
pub const UNBOUND: &str = "cgroups could not be bound: everything is denied in them; raise the setting bindings";

impl Daemon {
    /// Looks at everything that can be wrong, and tells of a change.
    pub fn refresh(&mut self) {
        let mut reasons: Vec<String> = self.lasting.iter().cloned().collect();
        reasons.extend(self.node.stream.totals().failing().reasons(&self.config.audit_log));
        if self.pulse.stalls() {
            let log = self.config.audit_log.display();
            reasons.push(format!("the audit log {log} takes nothing: its disk hangs; records wait for it"));
        }
        if let Some(failure) = self.node.state.as_ref().and_then(|state| state.failure()) {
            reasons.push(format!("{} can't be written: {failure}", self.config.state_dir.display()));
        }
        if let Some(failure) = self.node.state.as_ref().and_then(|state| state.accounts_failure()) {
            reasons.push(format!("what became of agents' operations can't be written down: {failure}"));
        }
        reasons.extend(self.catalogue.reasons(&self.node.policies));
        reasons.extend(self.policies_watch.why());
        reasons.extend(self.overdue.iter().cloned());
        reasons.extend(self.gaps());
        reasons.extend(self.configured.iter().filter_map(|one| one.why().cloned()));
        let well = reasons.is_empty();
        let readiness = Readiness {
            ready: self.started && well,
            reasons: if self.started { reasons } else { vec!["starting".to_owned()] },
        };
        if *self.readiness.borrow() != readiness {
            if self.started {
                self.tell(if readiness.ready { "ready" } else { "degraded" }, readiness.reasons.clone());
            }
            self.readiness.send_replace(readiness);
        }
    }

    /// Reads how often programs were skipped, and tells of a change.
    pub fn check_misses(&mut self) {
        for (hook, count) in self.node.check_misses(&self.config.roots.proc) {
            tracing::error!(hook, count, "the kernel skipped a program, and what it should have judged passed");
        }
        self.refresh();
    }

    /// Why less is enforced than was at start: something passes, or passed, that nobody judged.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = self.node.misses.reasons();
        if self.level == Level::Full {
            let hooks = self.node.programs.hooks();
            let detached = hooks.iter().filter(|state| state.lacking());
            gaps.extend(detached.map(|state| format!("hook {} is not attached", state.hook.name)));
        }
        gaps
    }

    /// Makes a record about the monitor.
    pub fn tell(&mut self, action: &str, messages: Vec<String>) {
        self.node.tell_monitor(action, self.level, messages);
    }
}
