//! One operation of an agent, from the gate to the return value: the only place that turns reasons into verdicts, counts
//! them and tells of them.

use crate::emit::{count_verdict, fill, output};
use crate::gate::{self, Gate};
use crate::image::{Image, Text};
use crate::path::{self, Place};
use crate::scratch::{self, Scratch};
use crate::task::own_entry;
use agent_monitor_common::binding::{Binding, EMPTY_SLOT};
use agent_monitor_common::class::{Builtin, Class, Fault, Mode, Reason, Verdict};
use agent_monitor_common::decide::{OwnEntry, decide};
use agent_monitor_common::event::kind;
use agent_monitor_common::hook::HookId;

/// What a denied operation returns. The dynamic loader and `execvp` go on searching after EACCES but stop at EPERM.
pub const EACCES: i32 = 13;

/// An operation that is being judged.
pub struct Operation<'a> {
    /// The agent's policy.
    pub image: Image,
    /// The agent's binding.
    pub binding: Binding,
    /// Where its operands are.
    pub scratch: &'a mut Scratch,
}

/// What was found about an operation.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Its class, which a hook may find out late (an open for exec).
    pub class: Class,
    /// The accesses asked for.
    pub access: u16,
    /// The reason.
    pub reason: Reason,
    /// The fault or built-in denial where the reason is one.
    pub detail: u8,
    /// The labels of the object.
    pub labels: [u16; 3],
    /// The event's value.
    pub value: u64,
    /// The kernel only looked whether it would be granted: neither counted nor told.
    pub silent: bool,
    /// The object.
    pub object: Option<Text>,
    /// The new object of a rename or link.
    pub new_object: Option<Text>,
}

impl Outcome {
    /// An operation that could not be decided.
    #[inline(always)]
    pub fn fault(class: Class, access: u16, fault: Fault) -> Self {
        Self {
            class,
            access,
            reason: Reason::Fault,
            detail: fault as u8,
            labels: [0; 3],
            value: 0,
            silent: false,
            object: None,
            new_object: None,
        }
    }

    /// An operation that no policy can grant.
    #[inline(always)]
    pub fn builtin(class: Class, access: u16, builtin: Builtin, object: Option<Text>) -> Self {
        Self { reason: Reason::Builtin, detail: builtin as u8, object, ..Self::fault(class, access, Fault::NoImage) }
    }

    /// Whether a rule allows it.
    #[inline(always)]
    pub fn allowed(&self) -> bool {
        self.reason as u8 == Reason::AllowRule as u8
    }
}

impl Operation<'_> {
    /// The path of a name, as the object.
    #[inline(always)]
    pub fn path(&mut self, place: Place) -> Result<Text, Fault> {
        path::walk(&mut self.scratch.object, place)
    }

    /// Judges `access` to an operand.
    #[inline(always)]
    pub fn judge(&self, class: Class, object: Text, own: OwnEntry, access: u16) -> Outcome {
        let decision = decide(&self.image, class, &object, own, access);
        Outcome {
            class,
            access,
            reason: decision.reason,
            detail: if decision.reason as u8 == Reason::Builtin as u8 { Builtin::Monitor as u8 } else { 0 },
            labels: decision.rights.labels,
            value: 0,
            silent: false,
            object: Some(object),
            new_object: None,
        }
    }

    /// Judges `access` to a path that may be in the process's own entry of `/proc`.
    #[inline(always)]
    pub fn judge_path(&self, class: Class, object: Text, access: u16) -> Outcome {
        self.judge(class, object, own_entry(&object), access)
    }

    /// Judges `access` to the name at `place`.
    #[inline(always)]
    pub fn place(&mut self, place: Option<Place>, access: u16) -> Outcome {
        match place.ok_or(Fault::PathUnreadable).and_then(|place| self.path(place)) {
            Ok(object) => self.judge(Class::File, object, OwnEntry::default(), access),
            Err(fault) => Outcome::fault(Class::File, access, fault),
        }
    }
}

/// Judges one operation: `ask` translates the hook's arguments and says what it found, or `None` where there is nothing
/// to judge. Gives 0 or a negative errno. `previous` is what an earlier program on the hook returned; a denial of it
/// stands.
#[inline(always)]
pub fn guard(
    hook: HookId,
    class: Class,
    previous: i32,
    ask: impl FnOnce(&mut Operation<'_>) -> Option<Outcome>,
) -> i32 {
    if previous != 0 {
        return previous;
    }
    let (binding, cgroup, bound) = match gate::enter() {
        Gate::Outside => return 0,
        Gate::Agent(binding, cgroup) => (binding, cgroup, true),
        Gate::Unbound(cgroup) => {
            (Binding { slot: EMPTY_SLOT, agent: 0, mode: Mode::Enforce as u32, flags: 0 }, cgroup, false)
        }
    };
    let image = Image::of(binding.slot);
    let Some(scratch) = scratch::take() else {
        let pass = binding.mode == Mode::Audit as u32 || image.is_some_and(|image| image.faults_pass());
        let verdict = if pass { Verdict::Allow } else { Verdict::Deny };
        count_verdict(binding.agent, class, verdict, Reason::Fault, Fault::NoScratch as u8);
        return if pass { 0 } else { -EACCES };
    };
    let outcome = match image {
        _ if !bound => Some(Outcome::fault(class, 0, Fault::NoBinding)),
        None => Some(Outcome::fault(class, 0, Fault::NoImage)),
        Some(image) => ask(&mut Operation { image, binding, scratch }),
    };
    let result = match outcome {
        None => 0,
        Some(outcome) => conclude(hook, binding, cgroup, image, scratch, outcome),
    };
    scratch::give(scratch);
    result
}

/// Turns what was found into a verdict, counts and tells it.
#[inline(always)]
fn conclude(
    hook: HookId,
    binding: Binding,
    cgroup: u64,
    image: Option<Image>,
    scratch: &mut Scratch,
    outcome: Outcome,
) -> i32 {
    let (reason, audit) = (outcome.reason as u8, binding.mode == Mode::Audit as u32);
    let verdict = if reason == Reason::AllowRule as u8 {
        Verdict::Allow
    } else if reason == Reason::Builtin as u8 {
        Verdict::Deny
    } else if reason == Reason::Fault as u8 && image.is_some_and(|image| image.faults_pass()) {
        Verdict::Allow
    } else if audit {
        Verdict::Audit
    } else {
        Verdict::Deny
    };
    if outcome.silent {
        return if verdict as u8 == Verdict::Deny as u8 { -EACCES } else { 0 };
    }
    count_verdict(binding.agent, outcome.class, verdict, outcome.reason, outcome.detail);
    if reason == Reason::AllowRule as u8 {
        return 0;
    }
    let errno = if verdict as u8 == Verdict::Deny as u8 { EACCES } else { 0 };
    fill(&mut scratch.header, hook, kind::OPERATION, cgroup);
    scratch.header.class = outcome.class as u8;
    scratch.header.verdict = verdict as u8;
    scratch.header.reason = reason;
    scratch.header.detail = outcome.detail;
    scratch.header.access = outcome.access;
    scratch.header.errno = errno as u16;
    scratch.header.labels = outcome.labels;
    scratch.header.agent = binding.agent;
    scratch.header.slot = binding.slot;
    scratch.header.generation = image.map_or(0, |image| image.generation());
    scratch.header.value = outcome.value;
    output(scratch, outcome.object, outcome.new_object);
    -errno
}
