//! Why an operation is allowed or denied, by the same `decide` that runs in the kernel, and what would allow it.

use crate::operation::Operation;
use crate::suggest;
use crate::view::{ImageView, RuleRef};
use agent_monitor_common::class::{Builtin, Class, Fault, OnFault, Reason, USE, Verdict, file};
use agent_monitor_common::decide::{Operand, OwnEntry, Rights, more_rights, rights};
use agent_monitor_common::image::ReadImage;
use agent_monitor_common::limit::PATH_BYTES;

/// What is decided about an operation, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Allow or deny: the verdict of the rules, whatever the mode.
    pub verdict: Verdict,
    /// `allow_rule`, `deny_rule`, `no_rule`, `builtin:...` or `fault:...`.
    pub reason: String,
    /// The rule that gives the verdict, as it is named in records.
    pub rule: Option<String>,
    /// What that rule says about itself.
    pub rule_reason: Option<String>,
    /// Line of that rule in its document.
    pub rule_line: Option<u32>,
    /// The narrowest rule that would allow it, as YAML of a policy's `spec`; `None` where it is allowed or nothing can.
    pub suggestion: Option<String>,
}

/// Accesses that the cgroup and BPF file systems refuse to agents.
const CHANGES: u16 = file::WRITE | file::CREATE | file::DELETE | file::RENAME | file::LINK | file::SET_ATTRIBUTES;

/// What `image` decides about `operation`. Bytes that are no image decide nothing: the fault `no-image`.
#[must_use]
pub fn explain(image: &[u8], operation: &Operation) -> Explanation {
    match ImageView::parse(image) {
        Ok(view) => view.explain(operation),
        Err(_) => Explanation::without_rule(Verdict::Deny, format!("fault:{}", Fault::NoImage.name())),
    }
}

impl Explanation {
    fn without_rule(verdict: Verdict, reason: String) -> Self {
        Self { verdict, reason, rule: None, rule_reason: None, rule_line: None, suggestion: None }
    }

    fn builtin(builtin: Builtin) -> Self {
        Self::without_rule(Verdict::Deny, format!("builtin:{}", builtin.name()))
    }
}

/// What was found about one object.
struct Found {
    reason: Reason,
    /// The class whose labels decided, and the labels.
    class: Class,
    labels: [u16; 3],
    /// The accesses that the labels are asked about.
    access: u16,
    /// The accesses that no rule allows.
    missing: u16,
}

impl ImageView<'_> {
    /// What this image decides about `operation`.
    #[must_use]
    pub fn explain(&self, operation: &Operation) -> Explanation {
        let (object, new) = (operation.object.as_slice(), operation.new_object.as_ref());
        if let Some(builtin) = guarded(operation) {
            return Explanation::builtin(builtin);
        }
        if object.len() > PATH_BYTES || new.is_some_and(|(new, _)| new.len() > PATH_BYTES) {
            let verdict = if self.on_fault() == OnFault::Allow { Verdict::Allow } else { Verdict::Deny };
            return Explanation::without_rule(verdict, format!("fault:{}", Fault::PathTooLong.name()));
        }
        let mut found = vec![self.judge(operation.class, object, operation.own, operation.access)];
        if let Some((new, access)) = new {
            found.push(self.judge(operation.class, new, OwnEntry::default(), *access));
        }
        if found.iter().any(|found| found.reason == Reason::Builtin) {
            return Explanation::builtin(Builtin::Monitor);
        }
        if found.iter().any(|found| found.reason == Reason::DenyRule) {
            return self.by_rule(Verdict::Deny, Reason::DenyRule, &found);
        }
        if found.iter().any(|found| found.reason == Reason::NoRule) {
            let suggestion = self.suggestion(operation, &found);
            let reason = Reason::NoRule.name().to_owned();
            return Explanation { suggestion, ..Explanation::without_rule(Verdict::Deny, reason) };
        }
        match new {
            Some((new, _)) if more_rights(self.as_bytes(), object, new.as_slice(), operation.directory) => {
                Explanation::builtin(Builtin::MoreRights)
            }
            _ => self.by_rule(Verdict::Allow, Reason::AllowRule, &found),
        }
    }

    /// The rules that would let pass what no rule allows.
    fn suggestion(&self, operation: &Operation, found: &[Found]) -> Option<String> {
        let (object, own) = (operation.object.as_slice(), operation.own);
        let Some((new, access)) = &operation.new_object else {
            return suggest::rules(operation.class, &[(found[0].missing, object)], own);
        };
        if !self.may_be_given(object, new, operation.directory) {
            return None;
        }
        // The old name needs what the new one has: a name may not be changed to one with more rights.
        let image = self.as_bytes();
        let has = |path: &[u8]| rights(image, Class::File, path, OwnEntry::default()).effective();
        let needed = operation.access | access | has(new);
        suggest::rules(Class::File, &[(needed & !has(object), object), (access & !has(new), new)], own)
    }

    /// Whether rules for two files are enough for a rename: neither the right to execute or connect, nor what is below a
    /// directory, stands in its way.
    fn may_be_given(&self, old: &[u8], new: &[u8], directory: bool) -> bool {
        let image = self.as_bytes();
        [Class::File, Class::Exec, Class::Network].into_iter().all(|class| {
            let automaton = image.automaton(class);
            let start = if class == Class::Network { automaton.prefix } else { automaton.start };
            let [old, new] = [old, new].map(|path| path.walk(image, &automaton, start, 0));
            let has = |state| image.label_word(image.label(&automaton, state)) as u16 & 0x7fff;
            let below = |state| image.rights_class(&automaton, image.step(&automaton, state, b'/'));
            (class == Class::File || has(new) & !has(old) == 0) && (!directory || below(old) == below(new))
        })
    }

    /// Names the first rule in document order of those that gave `reason`.
    fn by_rule(&self, verdict: Verdict, reason: Reason, found: &[Found]) -> Explanation {
        let base = Explanation::without_rule(verdict, reason.name().to_owned());
        let found = found.iter().filter(|found| found.reason == reason);
        let numbers = found.filter_map(|found| self.rule_number(found.class, found.labels, found.access, reason));
        match numbers.min().and_then(|number| self.rule_at(number)) {
            None => base,
            Some(RuleRef { name, reason, line }) => Explanation {
                rule: Some(name.to_owned()),
                rule_reason: reason.map(str::to_owned),
                rule_line: Some(line),
                ..base
            },
        }
    }

    fn judge(&self, class: Class, object: &[u8], own: OwnEntry, access: u16) -> Found {
        let image = self.as_bytes();
        let found = rights(image, class, object, own);
        let reason = found.judge(access);
        let missing = access & !found.effective();
        let decided = Found { reason, class, labels: found.labels, access, missing };
        // As in the kernel: where no rule for files speaks of an executable mapping, the right to execute implies it.
        if class != Class::File || reason != Reason::NoRule || missing & file::MAP_EXEC == 0 {
            return decided;
        }
        let exec: Rights = rights(image, Class::Exec, object, own);
        if exec.judge(USE) != Reason::AllowRule {
            return decided;
        }
        let missing = missing & !file::MAP_EXEC;
        if missing != 0 {
            return Found { missing, ..decided };
        }
        let rest = access & !file::MAP_EXEC;
        if rest == 0 {
            return Found { reason: Reason::AllowRule, class: Class::Exec, labels: exec.labels, access: USE, missing };
        }
        Found { reason: Reason::AllowRule, access: rest, missing, ..decided }
    }
}

/// What no policy can grant, seen by its path: changes of the cgroup and BPF file systems, where systemd mounts them.
fn guarded(operation: &Operation) -> Option<Builtin> {
    if operation.class != Class::File {
        return None;
    }
    let new = operation.new_object.as_ref().map(|(new, access)| (new, *access));
    let names = [Some((&operation.object, operation.access)), new];
    names.into_iter().flatten().filter(|(_, access)| access & CHANGES != 0).find_map(|(path, _)| {
        let below = |directory: &[u8]| {
            path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        if below(b"/sys/fs/cgroup") {
            Some(Builtin::CgroupWrite)
        } else if below(b"/sys/fs/bpf") {
            Some(Builtin::Monitor)
        } else {
            None
        }
    })
}
