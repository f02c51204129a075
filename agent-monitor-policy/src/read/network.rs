//! Rules of the network.

use super::rules::Body;
use super::{Reader, plain};
use crate::address::{self, Prefix};
use crate::diagnostic::near_or_list;
use crate::machine::Language;
use crate::pattern::{ByteSet, Graph, Step, expand, parse_abstract, parse_path};
use crate::rule::Object;
use crate::yaml::{Kind, Node};
use agent_monitor_common::class::{Class, network};
use agent_monitor_common::name::{PROTOCOLS, SOCKET, SOCKET_KINDS, UNIX};

/// The keys that say what a rule applies to, with the words that each goes with.
const KEYS: &[(&str, &[(&str, u16)])] = &[
    ("to", &[("connect", network::CONNECT), ("send", network::SEND)]),
    ("at", &[("listen", network::LISTEN)]),
    ("sockets", &[("create", network::CREATE)]),
];

impl Reader<'_, '_> {
    pub(super) fn network_rule(&mut self, node: &Node) -> Option<Body> {
        let common = self.common(node, &["to", "at", "sockets"])?;
        let reason = self.reason(&common.fields);
        let present: Vec<_> = KEYS.iter().filter(|(key, _)| common.fields.get(key).is_some()).collect();
        if present.is_empty() {
            let help = "add `to` (connect, send), `at` (listen) or `sockets` (create)";
            self.error(node.place, "rule does not say what it applies to", help);
        }
        let access = self.network_access(common.effect, &present.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        let mut objects = Vec::new();
        for (key, words) in present {
            let Some(entry) = common.fields.entry(key) else { continue };
            let all = words.iter().fold(0, |bits, (_, bit)| bits | bit);
            let bits = access.map_or(all, |access| access & all);
            if bits == 0 {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let help = format!("`{key}` goes with `{}`", words.join("` and `"));
                self.error(entry.place, format!("`{key}` without a word that it goes with"), help);
            }
            let bits = if bits == 0 { all } else { bits };
            match *key {
                "sockets" => self.sockets(&entry.value, bits, &mut objects),
                _ => self.endpoint(&entry.value, key, common.allow, bits, &mut objects),
            }
        }
        access.map(|_| Body { class: Class::Network, allow: common.allow, reason, objects })
    }

    /// The accesses named, of those that the keys present go with.
    fn network_access(&mut self, node: &Node, present: &[&str]) -> Option<u16> {
        let mut access = 0;
        for node in self.report.filled_list(node, "list of accesses", "name an access, like `connect`")? {
            let Some(text) = self.report.word(node, "access") else { continue };
            let of = |key: &&(&str, &[(&str, u16)])| key.1.iter().find(|(word, _)| *word == text).map(|(_, bit)| *bit);
            if text == "all" {
                access |= KEYS
                    .iter()
                    .filter(|(key, _)| present.contains(key))
                    .flat_map(|(_, words)| *words)
                    .fold(0, |a, w| a | w.1);
            } else if let Some(key) = KEYS.iter().find(|key| of(key).is_some()) {
                access |= of(&key).unwrap_or(0);
                if !present.is_empty() && !present.contains(&key.0) {
                    self.error(
                        node.place,
                        format!("`{text}` without `{}`", key.0),
                        format!("`{text}` goes with `{}`", key.0),
                    );
                }
            } else {
                let words = ["create", "connect", "send", "listen", "all"];
                self.error(node.place, format!("unknown access `{text}` of the network"), near_or_list(text, &words));
            }
        }
        (access != 0).then_some(access)
    }

    fn sockets(&mut self, node: &Node, access: u16, objects: &mut Vec<Object>) {
        let words: Vec<&str> = SOCKET_KINDS.iter().map(|(word, _)| *word).collect();
        for node in self.report.filled_list(node, "`sockets`", "name a family, like `inet`").unwrap_or_default() {
            let Some(text) = self.report.word(node, "family") else { continue };
            match SOCKET_KINDS.iter().find(|(word, _)| *word == text) {
                Some((_, kind)) => objects.push(plain(access, Graph::of_bytes(&[SOCKET, *kind]), node, text)),
                None => {
                    let near = crate::diagnostic::did_you_mean(text, words.iter().copied());
                    let help =
                        near.unwrap_or_else(|| "write it as the kernel does, in lower case, like `inet6`".to_owned());
                    self.error(node.place, format!("unknown family of sockets `{text}`"), help);
                }
            }
        }
    }

    /// `to` or `at`.
    fn endpoint(&mut self, node: &Node, key: &str, allow: bool, access: u16, objects: &mut Vec<Object>) {
        let known = ["addresses", "ports", "protocols", "unix"];
        let Some(fields) = self.report.fields_and_later(node, &format!("`{key}`"), &known, &["names"]) else { return };
        if let Some(unix) = fields.get("unix") {
            for other in &known[..3] {
                if let Some(entry) = fields.entry(other) {
                    self.error(
                        entry.place,
                        format!("`unix` with `{other}`"),
                        "make two rules of it: `unix` stands alone",
                    );
                }
            }
            self.unix(unix, access, objects);
            return;
        }
        if fields.get("names").is_some() {
            return;
        }
        let mut complete = true;
        let mut read = |list: Option<()>| complete &= list.is_some();
        let addresses = fields.get("addresses").map(|node| {
            let (found, good) = self.addresses(node, key);
            read(good.then_some(()));
            found
        });
        let ports = fields.get("ports").map(|node| {
            let (found, good) = self.ports(node);
            read(good.then_some(()));
            found
        });
        let protocols = fields.get("protocols").map(|node| {
            let (found, good) = self.protocols(node);
            read(good.then_some(()));
            found
        });
        if !complete {
            return;
        }
        let (ports, protocols) = (ports.as_deref(), protocols.as_ref());
        let graph = operands(&destinations(addresses.as_deref(), allow), ports, protocols);
        objects.push(plain(access, graph, node, key));
        if !allow && access & network::LISTEN != 0 {
            // A socket that listens everywhere listens also where it is denied.
            let everywhere = [Prefix::v4([0; 4], 32), Prefix::v6([0; 16], 128)];
            let graph = operands(&destinations(Some(&everywhere), allow), ports, protocols);
            objects.push(plain(network::LISTEN, graph, node, key));
        }
    }

    /// The prefixes, and whether all of them are good.
    fn addresses(&mut self, node: &Node, key: &str) -> (Vec<Prefix>, bool) {
        let mut found = Vec::new();
        let Some(list) = self.report.filled_list(node, "`addresses`", "leave the key out for every address") else {
            return (found, false);
        };
        let mut good = true;
        for node in list {
            let Some(text) = self.report.text(node, "address").map(str::to_owned) else {
                good = false;
                continue;
            };
            match self.expanded(node, &text) {
                None => good = false,
                // An address of no network stands for the missing one (RFC 5737).
                Some(None) => found.push(Prefix::v4([192, 0, 2, 1], 32)),
                Some(Some(text)) => match address::parse_prefix(&text) {
                    Ok(prefix) if key == "to" && prefix.is_unspecified() => {
                        let (local, every) = if prefix.is_v4() { ("127.0.0.1", "0.0.0.0/0") } else { ("::1", "::/0") };
                        let help =
                            format!("write `{local}`, which it means as a destination, or `{every}` for every address");
                        self.error(node.place, format!("`{text}` is never a destination"), help);
                        good = false;
                    }
                    Ok(prefix) => found.push(prefix),
                    Err((message, help)) => {
                        self.error(node.place, message, help);
                        good = false;
                    }
                },
            }
        }
        (found, good)
    }

    fn ports(&mut self, node: &Node) -> (Vec<(u16, u16)>, bool) {
        let mut found = Vec::new();
        let Some(list) = self.report.filled_list(node, "`ports`", "leave the key out for every port") else {
            return (found, false);
        };
        let mut good = true;
        for node in list {
            let port = match &node.kind {
                Kind::Number(text) => address::parse_port(text).map(|port| Some((port, port))),
                Kind::Text(text) if text.contains("${") => match self.expanded(node, text) {
                    Some(Some(text)) if text.contains('-') => address::parse_range(&text).map(Some),
                    Some(Some(text)) => address::parse_port(&text).map(|port| Some((port, port))),
                    Some(None) => Ok(Some((1, 1))),
                    None => {
                        good = false;
                        Ok(None)
                    }
                },
                Kind::Text(text) => address::parse_range(text).map(Some),
                _ => Err((
                    format!("port is {}", node.what()),
                    "write a number, or a range like \"8000-8999\"".to_owned(),
                )),
            };
            match port {
                Ok(port) => found.extend(port),
                Err((message, help)) => {
                    good = false;
                    if !matches!(node.kind, Kind::Broken) {
                        self.error(node.place, message, help);
                    }
                }
            }
        }
        (found, good)
    }

    fn protocols(&mut self, node: &Node) -> (ByteSet, bool) {
        let mut found = ByteSet::NONE;
        let words: Vec<&str> = PROTOCOLS.iter().map(|(word, _)| *word).collect();
        let Some(list) = self.report.filled_list(node, "`protocols`", "leave the key out for every protocol") else {
            return (found, false);
        };
        let mut good = true;
        for node in list {
            let word = self.report.word(node, "protocol").map(str::to_owned);
            match word.as_ref().and_then(|text| PROTOCOLS.iter().find(|(word, _)| word == text)) {
                Some((_, number)) => found.insert(*number),
                None => {
                    good = false;
                    if let Some(text) = word {
                        self.error(node.place, format!("unknown protocol `{text}`"), near_or_list(&text, &words));
                    }
                }
            }
        }
        (found, good)
    }

    /// Text with the values of its variables: `None` after an error, `Some(None)` where one is unset.
    fn expanded(&mut self, node: &Node, text: &str) -> Option<Option<String>> {
        match expand(text, &self.values) {
            Ok(text) => Some(text),
            Err(error) => {
                self.pattern_error(node, text, 0, error);
                None
            }
        }
    }

    fn unix(&mut self, node: &Node, access: u16, objects: &mut Vec<Object>) {
        let help = "name a path, like `/run/nscd/socket`, or an abstract name, like `@name`";
        for node in self.report.filled_list(node, "`unix`", help).unwrap_or_default() {
            let Some(text) = self.report.text(node, "pattern") else { continue };
            let (skipped, language, graph) = match text.strip_prefix('@') {
                Some(rest) => (1, Language::Bytes, parse_abstract(rest, &self.values)),
                None => (0, Language::Path, parse_path(text, &self.values)),
            };
            match graph {
                Ok(graph) => {
                    let graph = if skipped == 1 { graph.behind(b'@') } else { graph };
                    let text = text.to_owned();
                    objects.push(Object { access, graph, language, prefix: Some(UNIX), place: node.place, text });
                }
                Err(error) => self.pattern_error(node, text, skipped, error),
            }
        }
    }
}

/// The address bytes that are meant: by family, each a list of sets, one for each byte.
struct Destinations {
    v4: Vec<Vec<ByteSet>>,
    v6: Vec<Vec<ByteSet>>,
}

/// The addresses of `prefixes`, or all. Metadata services are allowed only where they are named exactly.
fn destinations(prefixes: Option<&[Prefix]>, allow: bool) -> Destinations {
    let all = [Prefix::v4([0; 4], 0), Prefix::v6([0; 16], 0)];
    let mut found = Destinations { v4: Vec::new(), v6: Vec::new() };
    for prefix in prefixes.unwrap_or(&all) {
        let parts = if allow { prefix.without_metadata() } else { vec![prefix.sets()] };
        if prefix.is_v4() { &mut found.v4 } else { &mut found.v6 }.extend(parts);
    }
    found
}

/// The operands with these addresses, ports and protocols.
fn operands(addresses: &Destinations, ports: Option<&[(u16, u16)]>, protocols: Option<&ByteSet>) -> Graph {
    use agent_monitor_common::name::{IPV4, IPV6};
    let mut graph = Graph::new();
    let mut families = Vec::new();
    for (family, addresses) in [(IPV4, &addresses.v4), (IPV6, &addresses.v6)] {
        let ends: Vec<_> = addresses
            .iter()
            .map(|sets| sets.iter().rev().fold(0, |next, set| graph.add(Step::Set(*set, next))))
            .collect();
        if ends.is_empty() {
            continue;
        }
        let address = graph.add(Step::Either(ends));
        let ranges: Vec<_> = ports
            .unwrap_or(&[(0, u16::MAX)])
            .iter()
            .flat_map(|range| address::port_bytes(*range))
            .map(|(high, low)| {
                let low = graph.add(Step::Set(low, address));
                graph.add(Step::Set(high, low))
            })
            .collect();
        let port = graph.add(Step::Either(ranges));
        let protocol = graph.add(Step::Set(protocols.copied().unwrap_or(ByteSet::ALL), port));
        families.push(graph.add(Step::Byte(family, protocol)));
    }
    let start = graph.add(Step::Either(families));
    graph.starting(start)
}
