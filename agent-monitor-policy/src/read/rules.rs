//! Rules of files, exec, privileges and capabilities, and what all rules have in common.

use super::{Reader, plain};
use crate::diagnostic::{did_you_mean, near_or_list, nearest};
use crate::fields::Fields;
use crate::machine::Language;
use crate::pattern::{Graph, parse_path};
use crate::rule::{Object, Rule};
use crate::yaml::Node;
use agent_monitor_common::class::{Class, USE, access_words, all_accesses};
use agent_monitor_common::name::{CAPABILITIES, Privilege, anonymous};
use agent_monitor_common::privilege::NEVER;

/// Powers with which mounts and the root of a process are changed, and with them what each path is.
const PATHS_CHANGE: &[(Class, &str)] = &[
    (Class::Capability, "CAP_SYS_ADMIN"),
    (Class::Privilege, "subvolumes"),
    (Class::Capability, "CAP_SYS_CHROOT"),
    (Class::Privilege, "mount"),
    (Class::Privilege, "chroot"),
    (Class::Privilege, "user-namespace"),
];

/// Powers that undo rules of another class: what each does to them, and what to do about it.
const UNDOES: &[(Class, &str, &str, &str)] = &[
    (
        Class::Capability,
        "CAP_MKNOD",
        "lets a program make a node of any disk under a name that it may open: no rule on paths holds it then",
        "allow it only to programs that are trusted with every file",
    ),
    (
        Class::Capability,
        "CAP_NET_ADMIN",
        "lets a program change routes, addresses and filters: an allowed address may be another host then",
        "allow it only in a network namespace of the agent's own",
    ),
    (
        Class::Privilege,
        "bpf",
        "with CAP_BPF and CAP_PERFMON lets a program run in the kernel: no rule holds it then",
        "allow it only to programs that are trusted with the machine",
    ),
    (
        Class::Privilege,
        "kernel-module",
        "with CAP_SYS_MODULE lets a program change the kernel: no rule holds it then",
        "allow it only to programs that are trusted with the machine",
    ),
    (
        Class::Privilege,
        "kexec",
        "with CAP_SYS_BOOT lets a program start another kernel: no rule holds it then",
        "allow it only to programs that are trusted with the machine",
    ),
    (
        Class::Privilege,
        "raw-io",
        "with CAP_SYS_RAWIO lets a program read and write all memory: no rule holds it then",
        "allow it only to programs that are trusted with the machine",
    ),
];

/// What every rule has.
pub(super) struct Common<'n> {
    pub allow: bool,
    /// The list behind `allow` or `deny`.
    pub effect: &'n Node,
    pub fields: Fields<'n>,
}

/// A rule without its name and place.
pub(super) struct Body {
    pub class: Class,
    pub allow: bool,
    pub reason: Option<String>,
    pub objects: Vec<Object>,
}

impl Reader<'_, '_> {
    /// Reads each rule of a list.
    pub(super) fn each_rule(&mut self, node: &Node, key: &str, one: fn(&mut Self, &Node) -> Option<Body>) {
        for (number, node) in self.report.list(node, &format!("`{key}`")).unwrap_or_default().iter().enumerate() {
            if let Some(Body { class, allow, reason, objects }) = one(self, node) {
                let name = format!("{key}[{number}]");
                self.source.rules.push(Rule { class, allow, name, reason, place: node.place, objects });
            }
        }
    }

    /// The keys of a rule, and whether it allows or denies.
    pub(super) fn common<'n>(&mut self, node: &'n Node, own: &[&str]) -> Option<Common<'n>> {
        let known: Vec<&str> = ["allow", "deny"].iter().chain(own).chain(&["reason"]).copied().collect();
        let fields = self.report.fields_and_later(node, "rule", &known, &["record"])?;
        let (allow, effect) = match (fields.get("allow"), fields.get("deny")) {
            (Some(effect), None) => (true, effect),
            (None, Some(effect)) => (false, effect),
            (Some(_), Some(_)) => {
                let place = fields.entry("deny").map_or(node.place, |entry| entry.place);
                self.error(place, "rule has both `allow` and `deny`", "make two rules of it");
                return None;
            }
            (None, None) => {
                self.error(node.place, "rule has neither `allow` nor `deny`", "a rule has exactly one of the two");
                return None;
            }
        };
        Some(Common { allow, effect, fields })
    }

    pub(super) fn reason(&mut self, fields: &Fields<'_>) -> Option<String> {
        let node = fields.get("reason")?;
        self.report.text(node, "`reason`").map(str::to_owned)
    }

    pub(super) fn file_rule(&mut self, node: &Node) -> Option<Body> {
        let common = self.common(node, &["paths"])?;
        let access = self.file_access(common.effect);
        let reason = self.reason(&common.fields);
        let Some(paths) = common.fields.get("paths") else {
            self.error(node.place, "rule has no `paths`", "say which paths: `paths: [\"/usr/**\"]`");
            return None;
        };
        let objects = self.path_objects(paths, "`paths`", access.unwrap_or(all_accesses(Class::File)));
        access.map(|_| Body { class: Class::File, allow: common.allow, reason, objects })
    }

    fn file_access(&mut self, node: &Node) -> Option<u16> {
        let mut access = 0;
        let words: Vec<&str> = access_words(Class::File).iter().map(|(word, _)| *word).chain(["all"]).collect();
        for node in self.report.filled_list(node, "list of accesses", "name an access, like `read`")? {
            let Some(text) = self.report.word(node, "access") else { continue };
            match access_words(Class::File).iter().find(|(word, _)| *word == text) {
                Some((_, bit)) => access |= bit,
                None if text == "all" => access = all_accesses(Class::File),
                None => self.error(node.place, format!("unknown access `{text}` of files"), near_or_list(text, &words)),
            }
        }
        (access != 0).then_some(access)
    }

    pub(super) fn exec_rule(&mut self, node: &Node) -> Option<Body> {
        let common = self.common(node, &[])?;
        let reason = self.reason(&common.fields);
        let objects = self.path_objects(common.effect, "list of patterns", USE);
        Some(Body { class: Class::Exec, allow: common.allow, reason, objects })
    }

    /// Path patterns and words for what has no name.
    fn path_objects(&mut self, node: &Node, what: &str, access: u16) -> Vec<Object> {
        let Some(list) = self.report.filled_list(node, what, "name a path, like `/usr/**`") else { return Vec::new() };
        let mut objects = Vec::new();
        for node in list {
            let Some(text) = self.report.text(node, "pattern") else { continue };
            if text.starts_with("anon:") {
                match anonymous::ALL.iter().find(|word| **word == text) {
                    Some(word) => objects.push(plain(access, Graph::of_bytes(word.as_bytes()), node, word)),
                    None => {
                        let help = near_or_list(text, anonymous::ALL);
                        self.error(node.place, format!("`{text}` is no kind of nameless file"), help);
                    }
                }
                continue;
            }
            match parse_path(text, &self.values) {
                Ok(graph) => {
                    let (language, place, text) = (Language::Path, node.place, text.to_owned());
                    objects.push(Object { access, graph, language, prefix: None, place, text });
                }
                Err(error) => self.pattern_error(node, text, 0, error),
            }
        }
        objects
    }

    pub(super) fn privilege_rule(&mut self, node: &Node) -> Option<Body> {
        let known: Vec<&str> = Privilege::ALL.iter().map(|one| one.name()).collect();
        self.named_rule(node, Class::Privilege, "privilege", |text| {
            if let Some(privilege) = Privilege::from_name(text) {
                return Ok(privilege as u8);
            }
            if let Some((_, why)) = NEVER.iter().find(|(name, _)| *name == text) {
                return Err((format!("privilege `{text}` can't be granted"), format!("remove it: {why}")));
            }
            let near = did_you_mean(text, known.iter().copied());
            Err((format!("unknown privilege `{text}`"), near.unwrap_or_else(|| near_or_list("", &known))))
        })
    }

    pub(super) fn capability_rule(&mut self, node: &Node) -> Option<Body> {
        self.named_rule(node, Class::Capability, "capability", |text| {
            if let Some(number) = CAPABILITIES.iter().position(|name| *name == text) {
                return Ok(number as u8);
            }
            // Without the prefix that all share: it would make all of them near.
            let stem = text.to_uppercase();
            let stem = stem.strip_prefix("CAP_").unwrap_or(&stem);
            let near = nearest(stem, CAPABILITIES.iter().filter_map(|name| name.strip_prefix("CAP_")));
            let help = near.map_or_else(
                || "write it as capabilities(7) does, like `CAP_CHOWN`".to_owned(),
                |near| format!("did you mean `CAP_{near}`?"),
            );
            Err((format!("unknown capability `{text}`"), help))
        })
    }

    /// A rule that names things with numbers.
    fn named_rule(
        &mut self,
        node: &Node,
        class: Class,
        what: &str,
        number: impl Fn(&str) -> Result<u8, (String, String)>,
    ) -> Option<Body> {
        let common = self.common(node, &[])?;
        let reason = self.reason(&common.fields);
        let mut objects = Vec::new();
        let list =
            self.report.filled_list(common.effect, &format!("list of {}", plural(what)), &format!("name a {what}"));
        for node in list.unwrap_or_default() {
            let Some(text) = self.report.word(node, what) else { continue };
            match number(text) {
                Ok(number) => {
                    if common.allow && PATHS_CHANGE.contains(&(class, text)) {
                        let message =
                            format!("`{text}` lets a program change what paths mean: no rule on paths holds it then");
                        let help = "allow it only to programs that are trusted with every file".to_owned();
                        self.report.warning(node.place, message, Some(help));
                    }
                    let undoes = UNDOES.iter().find(|(of, name, ..)| common.allow && (*of, *name) == (class, text));
                    if let Some((.., what, help)) = undoes {
                        self.report.warning(node.place, format!("`{text}` {what}"), Some((*help).to_owned()));
                    }
                    objects.push(plain(USE, Graph::of_bytes(&[number]), node, text));
                }
                Err((message, help)) => self.error(node.place, message, help),
            }
        }
        Some(Body { class, allow: common.allow, reason, objects })
    }
}

fn plural(what: &str) -> String {
    what.strip_suffix('y').map_or_else(|| format!("{what}s"), |stem| format!("{stem}ies"))
}
