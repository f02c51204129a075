//! The proof that one policy makes the difference: every step works unbound, is denied (or allowed) bound, works for an
//! outsider meanwhile, and works again after unbinding.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::process::{Process, Step};
use super::{EACCES, Scene};

/// A record of a denied operation: hook, accesses, object, reason and rule.
pub fn record(operation: &str, access: &[&str], object: Value, reason: &str, rule: Option<&str>) -> Value {
    json!({
        "type": "operation", "operation": operation, "access": access, "object": object, "verdict": "deny",
        "reason": reason, "errno": "EACCES", "mode": "enforce", "policy": {"name": "scenario", "rule": rule},
    })
}

/// A record of something that no policy can grant.
pub fn builtin(operation: &str, access: &[&str], object: Value, what: &str) -> Value {
    json!({
        "type": "operation", "operation": operation, "access": access, "object": object, "verdict": "deny",
        "reason": format!("builtin:{what}"), "errno": "EACCES", "policy": {"name": "scenario"},
    })
}

/// A record of a capability that was not given.
pub fn capability(name: &str) -> Value {
    record("capable", &[], json!({"name": name}), "no_rule", None)
}

/// A record of a privilege that no rule gives, whichever hook of the kernel asked.
pub fn privilege(name: &str) -> Value {
    json!({
        "type": "operation", "class": "privilege", "object": {"name": name}, "verdict": "deny", "reason": "no_rule",
        "errno": "EACCES", "mode": "enforce", "policy": {"name": "scenario", "rule": null},
    })
}

type Prepare<'a> = Box<dyn Fn() + 'a>;

enum Expected {
    Allowed,
    Denied { errno: i32, records: Vec<Value> },
}

struct Act<'a> {
    prepare: Prepare<'a>,
    step: Step,
    bound: Expected,
    unbound: i32,
}

/// Steps that are proved together.
#[derive(Default)]
pub struct Cycle<'a> {
    acts: Vec<Act<'a>>,
    uncounted: bool,
}

impl<'a> Cycle<'a> {
    /// No steps yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A step that the policy denies, with its record.
    pub fn denied(self, step: Step, record: Value) -> Self {
        self.prepared(|| (), step, EACCES, vec![record])
    }

    /// A step that the policy allows.
    pub fn allowed(self, step: Step) -> Self {
        self.allowed_after(|| (), step)
    }

    /// A step that the policy allows and that needs something done before.
    pub fn allowed_after(mut self, prepare: impl Fn() + 'a, step: Step) -> Self {
        self.acts.push(Act { prepare: Box::new(prepare), step, bound: Expected::Allowed, unbound: 0 });
        self
    }

    /// A step that the policy denies and that needs something done before it.
    pub fn denied_after(self, prepare: impl Fn() + 'a, step: Step, record: Value) -> Self {
        self.prepared(prepare, step, EACCES, vec![record])
    }

    /// A step that the policy denies with this errno and these records.
    pub fn prepared(mut self, prepare: impl Fn() + 'a, step: Step, errno: i32, records: Vec<Value>) -> Self {
        self.acts.push(Act {
            prepare: Box::new(prepare),
            step,
            bound: Expected::Denied { errno, records },
            unbound: 0,
        });
        self
    }

    /// Other denials may come with those that are expected.
    pub fn uncounted(mut self) -> Self {
        self.uncounted = true;
        self
    }

    /// The last step ends with this errno where nothing is denied (no route, nobody listens).
    pub fn otherwise(mut self, errno: i32) -> Self {
        if let Some(act) = self.acts.last_mut() {
            act.unbound = errno;
        }
        self
    }

    /// Goes through the steps in a process of the scene's cgroup, with this policy.
    pub fn run(self, scene: &mut Scene<'_>, spec: &str) -> Result<()> {
        let mut outsider = Process::start()?;
        let mut process = scene.process()?;
        self.all(&mut process, "before binding")?;
        scene.bind(spec)?;
        let mut denials = 0;
        for act in &self.acts {
            (act.prepare)();
            match &act.bound {
                Expected::Allowed => {
                    let done = process.expect(&act.step, act.unbound, "bound, and allowed");
                    done.map(drop).with_context(|| scene.told())?;
                }
                Expected::Denied { errno, records } => {
                    process.expect(&act.step, *errno, "bound")?;
                    for record in records {
                        scene.record(record).with_context(|| super::process::shown(&act.step))?;
                        denials += 1;
                    }
                }
            }
        }
        self.all(&mut outsider, "as an outsider")?;
        if self.uncounted {
            scene.unbind()?;
        } else {
            scene.unbind_after(denials)?;
        }
        self.all(&mut process, "after unbinding")
    }

    fn all(&self, process: &mut Process, when: &str) -> Result<()> {
        for act in &self.acts {
            (act.prepare)();
            process.expect(&act.step, act.unbound, when)?;
        }
        Ok(())
    }
}
