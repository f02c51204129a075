//! From documents to a policy: what is included, the machines of the rules, and what can only be seen when all rules are
//! there.

use crate::diagnostic::{Diagnostics, Place, Report, did_you_mean};
use crate::document::{Document, Library, Options};
use crate::machine::{Budget, Label, Machine, leaf};
use crate::notes::RuleNote;
use crate::policy::Policy;
use crate::read::read;
use crate::read::syscalls::agent_object;
use crate::rule::{Object, Rule, Source};
use crate::syscall::AGENT;
use agent_monitor_common::class::{Class, OnFault};
use agent_monitor_common::limit::{IMAGE_SIZES, PATH_BYTES, STATES};
use agent_monitor_common::syscall::{self, Abi};

/// How deep policies may include each other.
const DEPTH: usize = 32;
/// How many rules an error about the size of a policy names.
const NAMED: usize = 3;

/// A policy, and what its author should know.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The policy.
    pub policy: Policy,
    /// Warnings; never errors.
    pub warnings: Diagnostics,
}

/// Compiles a document and what it includes.
///
/// # Errors
/// All that is wrong in all documents, with the warnings.
pub fn compile(document: Document, library: &dyn Library, options: &Options) -> Result<Compiled, Diagnostics> {
    let path = document.path.clone();
    let mut loader = Loader { library, options, parts: Vec::new(), open: Vec::new(), found: Diagnostics::default() };
    let source = loader.load(document, "");
    let (parts, mut found) = (loader.parts, loader.found);
    for name in options.variables.keys() {
        let mut declared = parts.iter().flat_map(|part| &part.source.declared);
        if !declared.any(|known| known == name) {
            let known = parts.iter().flat_map(|part| &part.source.declared).map(String::as_str);
            let help = did_you_mean(name, known).unwrap_or_else(|| "declare it in `variables`".to_owned());
            found.append(Diagnostics::of_document(&path, format!("variable `{name}` is not declared"), Some(help)));
        }
    }
    // After errors too: a rule that can never match is reported with all else.
    let (policy, later) = unite(source.filter(|_| !found.has_errors()).as_ref(), &parts);
    found.append(later);
    match policy {
        Some(policy) if !found.has_errors() => Ok(Compiled { policy, warnings: found.sorted() }),
        _ => Err(found.sorted()),
    }
}

/// A document that was read.
struct Part {
    document: Document,
    source: Source,
    /// What stands before the names of its rules: `base/`.
    prefix: String,
}

struct Loader<'a> {
    library: &'a dyn Library,
    options: &'a Options,
    /// In the order of the rules.
    parts: Vec<Part>,
    /// Names of the policies that are being read, outermost first.
    open: Vec<String>,
    found: Diagnostics,
}

impl Loader<'_> {
    /// Reads a document and what it includes; its head.
    fn load(&mut self, document: Document, prefix: &str) -> Option<Source> {
        if let Err(error) = Document::check_size(&document.path, document.text.len()) {
            self.found.append(error);
            return None;
        }
        let mut report = Report::new(&document.path, &document.text);
        let source = read(&document, self.options, &mut report);
        let Some(source) = source else {
            self.found.append(report.finish());
            return None;
        };
        self.open.push(source.name.clone());
        let mut included = Diagnostics::default();
        for (name, place) in &source.includes {
            let before = std::mem::take(&mut self.found);
            self.include(name, *place, &document, prefix, &mut report);
            included.append(std::mem::replace(&mut self.found, before));
        }
        self.open.pop();
        self.found.append(report.finish());
        self.found.append(included);
        let head = Source { rules: Vec::new(), ..source.clone() };
        self.parts.push(Part { document, source, prefix: prefix.to_owned() });
        Some(head)
    }

    fn include(&mut self, name: &str, place: Place, from: &Document, prefix: &str, report: &mut Report<'_>) {
        if let Some(at) = self.open.iter().position(|open| open == name) {
            let circle = [&self.open[at..], &[name.to_owned()]].concat().join("` includes `");
            report.error(place, format!("`{circle}`"), Some("remove one `include` of the circle".to_owned()));
            return;
        }
        if self.parts.iter().any(|part| part.source.name == name) {
            return;
        }
        if self.open.len() >= DEPTH {
            report.error(place, format!("policies include each other more than {DEPTH} deep"), None);
            return;
        }
        match self.library.find(name, &from.path) {
            Err(error) => report.error(place, format!("policy `{name}` can't be read: {error}"), None),
            Ok(None) => {
                let help = "it is looked for by `metadata.name`, beside this file and then in the policy directory";
                report.error(place, format!("no policy `{name}`"), Some(help.to_owned()));
            }
            Ok(Some(document)) => {
                let path = document.path.clone();
                let source = self.load(document, &format!("{prefix}{name}/"));
                if let Some(other) = source.map(|source| source.name).filter(|other| other != name && !other.is_empty())
                {
                    let help = format!("include `{other}`, or give that policy the name");
                    report.error(place, format!("`{path}` is the policy `{other}`, not `{name}`"), Some(help));
                }
            }
        }
    }
}

/// A rule with its machine.
struct Built<'r> {
    rule: &'r Rule,
    part: usize,
    name: String,
    machine: Machine,
    /// How much it adds to the size of a union: its states, and how often it goes on looking after a `**`.
    weight: usize,
}

/// Unites the rules of all documents; without a head, only checks each for itself.
fn unite(head: Option<&Source>, parts: &[Part]) -> (Option<Policy>, Diagnostics) {
    let mut reports: Vec<Report<'_>> =
        parts.iter().map(|part| Report::new(&part.document.path, &part.document.text)).collect();
    let policy = Uniter { reports: &mut reports, budget: Budget(Budget::POLICY), told: false }.policy(head, parts);
    let mut found = Diagnostics::default();
    // The outermost document first, as it was read.
    reports.into_iter().rev().for_each(|report| found.append(report.finish()));
    (policy, found)
}

struct Uniter<'a, 'r> {
    reports: &'a mut [Report<'r>],
    budget: Budget,
    /// Whether it was said that the budget is spent.
    told: bool,
}

impl Uniter<'_, '_> {
    fn policy(&mut self, head: Option<&Source>, parts: &[Part]) -> Option<Policy> {
        let mut policy = Policy::empty();
        let mut built = Vec::new();
        let mut good = true;
        let rules =
            parts.iter().enumerate().flat_map(|(number, part)| part.source.rules.iter().map(move |r| (number, r)));
        for (number, (part, rule)) in rules.enumerate() {
            let name = format!("{}{}", parts[part].prefix, rule.name);
            policy.rules.push(RuleNote { name: name.clone(), reason: rule.reason.clone(), line: rule.place.line });
            match self.build(rule, number as u32, part) {
                Some((machine, weight)) => built.push(Built { rule, part, name, machine, weight }),
                None => good = false,
            }
        }
        policy.syscalls = parts.iter().any(|part| part.source.syscalls.is_some());
        let agent = default_syscalls();
        if !policy.syscalls {
            let number = policy.rules.len() as u32;
            policy.rules.push(RuleNote { name: agent.name.clone(), reason: agent.reason.clone(), line: 0 });
            let part = parts.len().saturating_sub(1);
            let (machine, weight) = self.build(&agent, number, part)?;
            built.push(Built { rule: &agent, part, name: agent.name.clone(), machine, weight });
        }
        let head = head.filter(|_| good)?;
        policy.name.clone_from(&head.name);
        policy.labels.clone_from(&head.labels);
        policy.mode = head.mode.unwrap_or(policy.mode);
        if let Some((on_fault, place)) = head.on_fault {
            policy.on_fault = on_fault;
            self.warn_of_faults(on_fault, place);
        }
        policy.syscall_enforcement = head.syscall_enforcement.unwrap_or(policy.syscall_enforcement);
        for class in Class::ALL {
            let of_class: Vec<&Built<'_>> = built.iter().filter(|one| one.rule.class == *class).collect();
            policy.machines[*class as usize] = self.class(*class, &of_class)?;
        }
        self.warn_of_no_exec(&policy, parts);
        // What can be known of the image is known now, not when the policy is loaded.
        match policy.image(0, &[]) {
            Ok(_) => Some(policy),
            Err(error) => {
                self.too_large(&error.to_string(), &built.iter().collect::<Vec<_>>());
                None
            }
        }
    }

    /// Warns where faults are allowed: a program has them happen when it likes. The outermost document, whose word counts, is
    /// the last one.
    fn warn_of_faults(&mut self, on_fault: OnFault, place: Place) {
        if let (OnFault::Allow, Some(report)) = (on_fault, self.reports.last_mut()) {
            let message = "`onFault: allow` lets a program have what rules deny: it renames directories above a file \
                           until the path can't be read";
            let help = "leave it out, and look with `mode: audit` for what is denied";
            report.warning(place, message, Some(help.to_owned()));
        }
    }

    /// Warns where rules for system calls let nothing be started: they take away what a policy without them has.
    fn warn_of_no_exec(&mut self, policy: &Policy, parts: &[Part]) {
        let machine = &policy.machines[Class::Syscall as usize];
        let allows = |name: &str| {
            let operand = syscall::number(name).map(|number| syscall::operand(Abi::Native, number.into()));
            operand.is_some_and(|operand| machine.label(machine.walk(&operand)).allowed() != 0)
        };
        let mut keys = parts.iter().enumerate().rev().filter_map(|(part, one)| Some((part, one.source.syscalls?)));
        if let Some((part, place)) = keys.next()
            && !allows("execve")
            && !allows("execveat")
        {
            let message = "`syscalls` allows neither `execve` nor `execveat`: no program can be started";
            let help = "begin with `allow: [\"@agent\"]`, or leave the key out";
            self.reports[part].warning(place, message.to_owned(), Some(help.to_owned()));
        }
    }

    /// The machine of one rule.
    fn build(&mut self, rule: &Rule, number: u32, part: usize) -> Option<(Machine, usize)> {
        let mut machines = Vec::new();
        let mut runs = 1;
        for object in &rule.objects {
            if self.budget.is_spent() {
                self.exhausted(object.place, part);
                return None;
            }
            let label = Label::of_rule(rule.allow, number, object.access);
            let Ok(machine) = leaf(&object.graph, object.language, label, &mut self.budget) else {
                let message = format!("pattern needs a larger automaton than the limit of {STATES} states");
                self.reports[part].error(object.place, message, Some("write several simpler patterns".to_owned()));
                return None;
            };
            runs += object.graph.runs();
            if machine.shortest().is_none_or(|length| length > PATH_BYTES) {
                self.never(object, part);
            } else {
                machines.push(object.prefix.map_or_else(|| machine.clone(), |prefix| machine.after(prefix)));
            }
        }
        match Machine::union(&machines, &mut self.budget) {
            Ok(machine) => {
                let weight = machine.states() * runs;
                Some((machine, weight))
            }
            Err(_) => {
                let message = format!("rule needs a larger automaton than the limit of {STATES} states");
                self.reports[part].error(
                    rule.place,
                    message,
                    Some("write simpler patterns, with fewer `**`".to_owned()),
                );
                None
            }
        }
    }

    /// Says once that no more is tried.
    fn exhausted(&mut self, place: Place, part: usize) {
        if !std::mem::replace(&mut self.told, true) {
            let help = "simplify the patterns before this one, with fewer `*` and `**`";
            let message =
                "policy needs more work to compile than the limit: nothing is known of the rules from here on";
            self.reports[part].error(place, message, Some(help.to_owned()));
        }
    }

    fn never(&mut self, object: &Object, part: usize) {
        let text = &object.text;
        let help = if text.ends_with('/') {
            format!("write `{}` for the directory, `{text}**` for all below it", text.trim_end_matches('/'))
        } else {
            "a resolved path has no empty name, no `.` and no `..`, and at most 4095 bytes".to_owned()
        };
        self.reports[part].error(object.place, format!("pattern `{text}` can match no resolved path"), Some(help));
    }

    /// The machine of one class, with warnings for rules that can do nothing.
    fn class(&mut self, class: Class, built: &[&Built<'_>]) -> Option<Machine> {
        let allow: Vec<&Built<'_>> = built.iter().filter(|one| one.rule.allow).copied().collect();
        let deny: Vec<&Built<'_>> = built.iter().filter(|one| !one.rule.allow).copied().collect();
        let limit = format!("policy needs a larger automaton for {class} than the limit", class = key(class));
        let (allowing, denying) = (self.union(&limit, &allow)?, self.union(&limit, &deny)?);
        for one in &allow {
            let access = one.rule.objects.iter().fold(0, |bits, object| bits | object.access);
            // A machine too large to tell is not worth an error here: its union is.
            if one.machine.hidden_by(&denying, access, &mut self.budget).unwrap_or(false) {
                let help = "remove the rule, or narrow the rule that denies";
                let message = format!("`{}` allows nothing: all of it is denied by other rules", one.name);
                self.reports[one.part].warning(one.rule.place, message, Some(help.to_owned()));
            }
        }
        match allowing.with(&denying, &mut self.budget) {
            Ok(machine) if machine.states() <= STATES => Some(machine),
            _ => {
                self.too_large(&limit, built);
                None
            }
        }
    }

    fn union(&mut self, limit: &str, built: &[&Built<'_>]) -> Option<Machine> {
        let machines: Vec<Machine> = built.iter().map(|one| one.machine.clone()).collect();
        match Machine::union(&machines, &mut self.budget) {
            Ok(machine) => Some(machine),
            Err(range) => {
                self.too_large(limit, &built[range]);
                None
            }
        }
    }

    /// Reports a size, with the rules that make it, at the largest.
    fn too_large(&mut self, what: &str, built: &[&Built<'_>]) {
        let mut largest: Vec<&&Built<'_>> = built.iter().collect();
        largest.sort_by_key(|one| std::cmp::Reverse(one.weight));
        largest.truncate(NAMED);
        let names: Vec<String> = largest.iter().map(|one| format!("`{}`", one.name)).collect();
        let message = format!("{what} of {STATES} states and {} bytes", IMAGE_SIZES[IMAGE_SIZES.len() - 1]);
        let help = format!("made large most of all by {}: simplify their patterns, with fewer `**`", names.join(", "));
        match largest.first() {
            Some(one) => self.reports[one.part].error(one.rule.place, message, Some(help)),
            None => {
                if let Some(report) = self.reports.last_mut() {
                    report.error(Place::default(), message, None);
                }
            }
        }
    }
}

/// The rule of a policy in which no document has `syscalls`.
fn default_syscalls() -> Rule {
    Rule {
        class: Class::Syscall,
        allow: true,
        name: AGENT.to_owned(),
        reason: Some("what a policy without `syscalls` allows".to_owned()),
        place: Place::default(),
        objects: agent_object().into_iter().collect(),
    }
}

/// The key of a class in a document.
fn key(class: Class) -> &'static str {
    match class {
        Class::File => "files",
        Class::Exec => "exec",
        Class::Network => "network",
        Class::Syscall => "syscalls",
        Class::Privilege => "privileges",
        Class::Capability => "capabilities",
    }
}
