//! One operation of an agent, from the gate to the return value: the only place that turns reasons into verdicts, counts
//! them and tells of them.
//!
//! What is found about an operation is written into its scratch buffer and not returned.
// VERIFIER: before 6.3 it refuses to read stack that was not written, which is what passing an `Option` or an enum with
// data by value amounts to; numbers in a map value have no such trouble.

use crate::emit::{count, count_verdict, fill, output, send_denial};
use crate::gate::{self, Gate};
use crate::image::{Image, Text};
use crate::path::{self, Named, Place};
use crate::scratch::{self, Scratch, clear, reload};
use crate::task::own_entry;
use agent_monitor_common::binding::EMPTY_SLOT;
use agent_monitor_common::class::{Builtin, Class, Fault, Mode, Reason, Verdict, file};
use agent_monitor_common::counter;
use agent_monitor_common::decide::{OwnEntry, decide};
use agent_monitor_common::event::kind;
use agent_monitor_common::hook::HookId;

/// What a denied operation returns. The dynamic loader and `execvp` go on searching after EACCES but stop at EPERM.
pub const EACCES: i32 = 13;
/// What a send gets whose packet a program drops where it leaves: the kernel chooses (`__cgroup_bpf_run_filter_skb()` in
/// `kernel/bpf/cgroup.c`).
const EPERM: i32 = 1;

/// An operation that is being judged.
pub struct Operation<'a> {
    /// The agent's policy.
    pub image: Image,
    /// The agent's number.
    pub agent: u32,
    /// Its operands, and what was found about it.
    pub scratch: &'a mut Scratch,
}

impl Operation<'_> {
    /// Notes that `access` was asked for, and why it is allowed or not.
    #[inline(always)]
    pub fn note(&mut self, class: Class, access: u16, reason: Reason, detail: u8) {
        let header = &mut self.scratch.header;
        header.class = class as u8;
        header.access = access;
        header.reason = reason as u8;
        header.detail = detail;
    }

    /// An operation that could not be decided.
    #[inline(always)]
    pub fn fault(&mut self, class: Class, access: u16, fault: Fault) {
        self.note(class, access, Reason::Fault, fault as u8);
    }

    /// An operation that no policy can grant.
    #[inline(always)]
    pub fn builtin(&mut self, class: Class, access: u16, builtin: Builtin) {
        self.note(class, access, Reason::Builtin, builtin as u8);
    }

    /// Makes what was noted a denial that no policy can change.
    #[inline(always)]
    pub fn becomes_builtin(&mut self, builtin: Builtin) {
        self.scratch.header.reason = Reason::Builtin as u8;
        self.scratch.header.detail = builtin as u8;
    }

    /// Whether the agent is in audit mode, in which what no rule allows passes.
    #[inline(always)]
    pub fn passes_in_audit(&self) -> bool {
        reload(&self.scratch.about) & AUDIT != 0
    }

    /// Says which operand is the object, and gives it back.
    #[inline(always)]
    pub fn set_object(&mut self, object: Text) -> Text {
        self.scratch.object_start = object.start;
        Text { start: reload(&self.scratch.object_start), ..object }
    }

    /// Says which operand is the new object, and gives it back.
    #[inline(always)]
    pub fn set_new_object(&mut self, object: Text) -> Text {
        self.scratch.new_object_start = object.start;
        Text { start: reload(&self.scratch.new_object_start), ..object }
    }

    /// Judges the object that was found, or notes why there is none.
    #[inline(always)]
    pub fn judge_found(&mut self, class: Class, found: Result<Text, Fault>, access: u16) {
        match found {
            Ok(object) => {
                self.judge(class, object, OwnEntry::default(), access);
            }
            Err(fault) => self.fault(class, access, fault),
        }
    }

    /// Judges `access` to an operand and says whether a rule allows it.
    #[inline(always)]
    pub fn judge(&mut self, class: Class, object: Text, own: OwnEntry, access: u16) -> bool {
        let decision = decide(&self.image, class, &object, own, access);
        // The only built-in denials in an image are the monitor's own files and sockets.
        let detail = if decision.reason as u8 == Reason::Builtin as u8 { Builtin::Monitor as u8 } else { 0 };
        self.note(class, access, decision.reason, detail);
        self.scratch.header.labels = decision.rights.labels;
        decision.reason as u8 == Reason::AllowRule as u8
    }

    /// Judges both names of a rename or link. The reason is that of the name that is
    /// denied; where both are, a rule that denies comes before the lack of one that allows.
    #[inline(always)]
    pub fn judge_names(&mut self, from: Text, from_access: u16, to: Text, to_access: u16) {
        self.judge(Class::File, from, OwnEntry::default(), from_access);
        let first = reload(&self.scratch.header.reason);
        if first == Reason::DenyRule as u8 || first == Reason::Builtin as u8 {
            return;
        }
        let labels = reload(&self.scratch.header.labels);
        self.judge(Class::File, to, OwnEntry::default(), to_access);
        let second = reload(&self.scratch.header.reason);
        if first == Reason::NoRule as u8 && (second == Reason::AllowRule as u8 || second == Reason::NoRule as u8) {
            self.note(Class::File, from_access, Reason::NoRule, 0);
            self.scratch.header.labels = labels;
        }
    }

    /// Judges `access` to a path that may be in the process's own entry of `/proc`.
    #[inline(always)]
    pub fn judge_path(&mut self, class: Class, object: Text, access: u16) -> bool {
        let own = own_entry(object, self.scratch);
        self.judge(class, object, own, access)
    }

    /// The same as [`Self::judge_found`] for a path that may be in the process's own entry of `/proc`.
    #[inline(always)]
    pub fn judge_found_path(&mut self, class: Class, found: Result<Text, Fault>, access: u16) {
        match found {
            Ok(object) => {
                self.judge_path(class, object, access);
            }
            Err(fault) => self.fault(class, access, fault),
        }
    }

    /// The operand of what is at `place`, as the object: its path, or the word for what it is without one.
    #[inline(always)]
    pub fn object_at(&mut self, place: Place, named: Named) -> Result<Text, Fault> {
        let object = if matches!(named, Named::Path) {
            path::walk(self.scratch.object(), place)?
        } else {
            path::nameless_text(self.scratch.object(), named)
        };
        Ok(self.set_object(object))
    }

    /// Judges `access` to the file with the name at `place`.
    #[inline(always)]
    pub fn judge_place(&mut self, place: Place, access: u16) {
        let found = self.object_at(place, Named::Path);
        self.judge_found(Class::File, found, access);
    }
}

/// Bits of what [`conclude`] needs to know about the agent.
const AUDIT: u64 = 1 << 32;
const FAULTS_PASS: u64 = 1 << 33;
const BOUND: u64 = 1 << 34;

/// Judges one operation: `ask` translates the hook's arguments and notes what it found, or returns `false` where there is
/// nothing to judge. Gives 0 or a negative errno. `previous` is what an earlier program on the hook returned; a denial of
/// it stands.
#[inline(always)]
pub fn guard(hook: HookId, class: Class, previous: i32, ask: impl FnOnce(&mut Operation<'_>) -> bool) -> i32 {
    if previous != 0 {
        return earlier(previous);
    }
    guard_at(gate::enter(), hook, class, ask)
}

/// The same for an operation that no policy can grant.
#[inline(always)]
pub fn guard_builtin(hook: HookId, class: Class, previous: i32, access: u16, builtin: Builtin) -> i32 {
    guard(
        hook,
        class,
        previous,
        #[inline(always)]
        |operation| {
            operation.builtin(class, access, builtin);
            true
        },
    )
}

/// The same as [`guard`] for whoever asks by another gate.
#[inline(always)]
pub fn guard_at(gate: Gate, hook: HookId, class: Class, ask: impl FnOnce(&mut Operation<'_>) -> bool) -> i32 {
    let (cgroup, slot, agent, audit, bound) = match gate {
        Gate::Outside => return 0,
        Gate::Agent(binding, cgroup) => (cgroup, binding.slot, binding.agent, binding.mode == Mode::Audit as u32, true),
        Gate::Unbound(cgroup) => (cgroup, EMPTY_SLOT, 0, false, false),
    };
    let Some(scratch) = scratch::take() else {
        // Denied in audit mode, too: whether it is something that no policy can grant is not known.
        tell_without_buffer(hook as u16, class as u8, u64::from(agent) << 32 | u64::from(slot), cgroup);
        return result(true);
    };
    scratch.about = u64::from(hook as u16) | if audit { AUDIT } else { 0 } | if bound { BOUND } else { 0 };
    scratch.cgroup = cgroup;
    scratch.agent_and_slot = u64::from(agent) << 32 | u64::from(slot);
    clear([&mut scratch.object_start, &mut scratch.new_object_start, &mut scratch.silent, &mut scratch.header.value]);
    clear(scratch.header.labels.each_mut());
    match Image::of(reload(&scratch.agent_and_slot) as u32) {
        Some(image) if reload(&scratch.about) & BOUND != 0 => {
            let mut operation = Operation { image, agent: (reload(&scratch.agent_and_slot) >> 32) as u32, scratch };
            let judged = ask(&mut operation);
            if !judged {
                scratch::give(scratch);
                return 0;
            }
            if reload(&scratch.header.reason) == Reason::AllowRule as u8 {
                count(counter::operations(reload(&scratch.header.class), Verdict::Allow));
                scratch::give(scratch);
                return 0;
            }
            if image.faults_pass() {
                scratch.about |= FAULTS_PASS;
            }
            scratch.header.generation = image.generation();
        }
        _ => {
            let fault = if reload(&scratch.about) & BOUND != 0 { Fault::NoImage } else { Fault::NoBinding };
            scratch.header.class = class as u8;
            scratch.header.access = 0;
            scratch.header.reason = Reason::Fault as u8;
            scratch.header.detail = fault as u8;
            scratch.header.generation = 0;
            scratch.about &= !AUDIT;
        }
    }
    // VERIFIER: in one place for all, and what it depends on in the scratch buffer, so that it is checked once.
    let denied = conclude(scratch);
    scratch::give(scratch);
    result(denied != 0)
}

/// What an earlier program on the hook returned, which stands.
// VERIFIER: from 6.12 on it wants to see that a return value is an errno.
#[inline(always)]
pub fn earlier(previous: i32) -> i32 {
    const MAX_ERRNO: i32 = 4095;
    if !(-MAX_ERRNO..=0).contains(&previous) { -EACCES } else { previous }
}

/// The return value of a hook.
#[inline(always)]
fn result(denied: bool) -> i32 {
    // VERIFIER: one of two constants, and never a computed number.
    if core::hint::black_box(denied) { -EACCES } else { 0 }
}

/// Counts and tells a denial for want of a buffer.
// VERIFIER: a function of its own, so that its registers are not those of the program.
#[inline(never)]
fn tell_without_buffer(hook: u16, class: u8, agent_and_slot: u64, cgroup: u64) -> u64 {
    let agent = (agent_and_slot >> 32) as u32;
    count_verdict(agent, class, Verdict::Deny, Reason::Fault as u8, Fault::NoScratch as u8);
    send_denial(
        agent,
        #[inline(always)]
        |event| {
            fill(event, hook, kind::OPERATION, cgroup);
            event.class = class;
            event.agent = agent;
            event.slot = agent_and_slot as u32;
            event.verdict = Verdict::Deny as u8;
            event.reason = Reason::Fault as u8;
            event.detail = Fault::NoScratch as u8;
            event.errno = errno(hook);
        },
    );
    1
}

/// What an operation gets that a hook denies.
#[inline(always)]
fn errno(hook: u16) -> u16 {
    match hook {
        // A tracepoint gives none.
        hook if hook == HookId::SysEnter as u16 => 0,
        hook if hook == HookId::SkbEgress as u16 => EPERM as u16,
        _ => EACCES as u16,
    }
}

/// Turns what was found into a verdict, where no rule allowed the operation; counts and tells it. 1 if it is denied.
#[inline(never)]
fn conclude(scratch: &mut Scratch) -> u64 {
    let about = reload(&scratch.about);
    let reason = reload(&scratch.header.reason);
    let audited = scratch.header.detail == Builtin::NoSyscallFilter as u8 && about & AUDIT != 0;
    // What is changed under a name that can't be told may be the monitor's.
    let hidden = reason == Reason::Fault as u8
        && scratch.header.class == Class::File as u8
        && scratch.header.detail == Fault::PathUnreachable as u8
        && scratch.header.access & !file::READ != 0;
    let verdict = if reason == Reason::Builtin as u8 && !audited || hidden {
        Verdict::Deny
    } else if reason == Reason::Fault as u8 && about & FAULTS_PASS != 0 {
        Verdict::Allow
    } else if about & AUDIT != 0 {
        Verdict::Audit
    } else {
        Verdict::Deny
    };
    // VERIFIER: read again at each use, which brings the paths of the three verdicts together.
    scratch.header.verdict = verdict as u8;
    if scratch.silent != 0 {
        return (reload(&scratch.header.verdict) == Verdict::Deny as u8).into();
    }
    let agent = (scratch.agent_and_slot >> 32) as u32;
    scratch.header.agent = agent;
    scratch.header.slot = scratch.agent_and_slot as u32;
    let header = &scratch.header;
    let verdict = match reload(&header.verdict) {
        verdict if verdict == Verdict::Allow as u8 => Verdict::Allow,
        verdict if verdict == Verdict::Audit as u8 => Verdict::Audit,
        _ => Verdict::Deny,
    };
    count_verdict(agent, header.class, verdict, reload(&header.reason), reload(&header.detail));
    fill(&mut scratch.header, about as u16, kind::OPERATION, scratch.cgroup);
    let denied = reload(&scratch.header.verdict) == Verdict::Deny as u8;
    scratch.header.errno = if denied { errno(about as u16) } else { 0 };
    #[cfg(feature = "log")]
    crate::emit::log(&scratch.header);
    output(scratch, reload(&scratch.header.verdict) == Verdict::Deny as u8);
    (reload(&scratch.header.verdict) == Verdict::Deny as u8).into()
}
