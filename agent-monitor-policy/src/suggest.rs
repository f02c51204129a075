//! The narrowest rule that would allow an operation, as YAML that can be pasted into a policy's `spec`.

use crate::object::{ObjectText, describe_object};
use crate::pattern::quote;
use agent_monitor_common::class::{Class, access_words, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::name::{PROTOCOLS, SOCKET_KINDS};

/// The narrowest rule that would allow what an event of process `pid` tells of; `None` where none can, or where none would
/// be of use, see [`is_of_another_process`].
#[must_use]
pub fn suggest(class: Class, access: u16, object: &[u8], new_object: &[u8], pid: u32) -> Option<String> {
    if matches!(class, Class::File | Class::Exec) && [object, new_object].iter().any(|p| is_of_another_process(p, pid))
    {
        return None;
    }
    let own = entry(object).map_or_else(OwnEntry::default, |(_, process)| OwnEntry { process, thread: 0 });
    if new_object.is_empty() {
        return rules(class, &[(access, object)], own);
    }
    // The old name needs what the new one has: a name may not be changed to one with more rights.
    rules(class, &[(access, object), (access, new_object)], own)
}

/// Whether a path is in the entry that `/proc` has for a process other than this one. `/proc/self` does not match it, and
/// a rule for its number is of no use after it, or of use to another process with the same number.
#[must_use]
pub fn is_of_another_process(path: &[u8], pid: u32) -> bool {
    entry(path).is_some_and(|(number, _)| number != Some(pid))
}

/// The process whose entry of `/proc` a path is in (`None`: no number that a process has), and the entry's length.
fn entry(path: &[u8]) -> Option<(Option<u32>, u32)> {
    let rest = path.strip_prefix(b"/proc/")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || !matches!(rest.get(digits), None | Some(b'/')) {
        return None;
    }
    let number = std::str::from_utf8(rest.get(..digits)?).ok().and_then(|digits| digits.parse().ok());
    Some((number, (b"/proc/".len() + digits) as u32))
}

/// Rules that allow each of these accesses to its object.
pub(crate) fn rules(class: Class, missing: &[(u16, &[u8])], own: OwnEntry) -> Option<String> {
    let missing: Vec<_> = missing.iter().filter(|(access, _)| *access != 0).collect();
    match class {
        Class::File => files(&missing, own),
        Class::Exec => {
            let [(_, object)] = missing.as_slice() else { return None };
            Some(format!("exec:\n  - allow: [{}]\n", yaml(&name(object, own)?)))
        }
        Class::Network => {
            let [(access, object)] = missing.as_slice() else { return None };
            network(*access, object)
        }
        Class::Privilege | Class::Capability => {
            let [(_, object)] = missing.as_slice() else { return None };
            let ObjectText::Name(name) = describe_object(class, object) else { return None };
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            let key = if class == Class::Privilege { "privileges" } else { "capabilities" };
            Some(format!("{key}:\n  - allow: [{name}]\n"))
        }
        Class::Syscall => {
            let [(_, object)] = missing.as_slice() else { return None };
            let ObjectText::Name(name) = describe_object(class, object) else { return None };
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            let name = if name.contains(':') { format!("\"{}\"", crate::syscall::FOREIGN) } else { name };
            // The key alone takes away what a policy without it has.
            Some(format!("syscalls:\n  - allow: [{name}]   # with \"@agent\" too, if the policy has no syscalls yet\n"))
        }
    }
}

fn words(class: Class, access: u16) -> String {
    let words = access_words(class).iter().filter(|(_, bit)| access & bit != 0);
    words.map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

fn files(missing: &[&(u16, &[u8])], own: OwnEntry) -> Option<String> {
    let mut out = String::from("files:\n");
    let mut at = 0;
    while let Some((access, object)) = missing.get(at) {
        let mut paths = vec![yaml(&name(object, if at == 0 { own } else { OwnEntry::default() })?)];
        if let Some((same, other)) = missing.get(at + 1).filter(|(next, _)| next == access) {
            debug_assert_eq!(same, access);
            paths.push(yaml(&name(other, OwnEntry::default())?));
            at += 1;
        }
        out += &format!("  - allow: [{}]\n    paths: [{}]\n", words(Class::File, *access), paths.join(", "));
        at += 1;
    }
    Some(out)
}

/// The pattern for a path, or the word for a file without a name.
fn name(object: &[u8], own: OwnEntry) -> Option<String> {
    if object.is_empty() {
        return None;
    }
    if own.thread != 0 {
        return Some(format!("/proc/thread-self{}", quote(object.get(own.thread as usize..)?)));
    }
    if own.process != 0 {
        return Some(format!("/proc/self{}", quote(object.get(own.process as usize..)?)));
    }
    Some(quote(object))
}

fn network(access: u16, object: &[u8]) -> Option<String> {
    let key = if access & network::LISTEN != 0 { "at" } else { "to" };
    let words = words(Class::Network, access);
    let target = match describe_object(Class::Network, object) {
        ObjectText::Socket(kind) => {
            let known = SOCKET_KINDS.iter().any(|(word, _)| *word == kind);
            return known.then(|| format!("network:\n  - allow: [create]\n    sockets: [{kind}]\n"));
        }
        ObjectText::Unix(_) => {
            let path = object.get(1..).filter(|path| !path.is_empty())?;
            let pattern = match path.strip_prefix(b"@") {
                Some(name) => format!("@{}", quote(name)),
                None => quote(path),
            };
            format!("unix: [{}]", yaml(&pattern))
        }
        ObjectText::Internet { protocol, address, port, .. } => {
            let known = PROTOCOLS.iter().any(|(word, _)| *word == protocol);
            let protocols = if known { format!(", protocols: [{protocol}]") } else { String::new() };
            // Port 0 is matched only by a rule without ports.
            let ports = if port == 0 { String::new() } else { format!(", ports: [{port}]") };
            format!("addresses: [\"{address}\"]{ports}{protocols}")
        }
        _ => return None,
    };
    Some(format!("network:\n  - allow: [{words}]\n    {key}: {{{target}}}\n"))
}

/// A pattern as a quoted YAML scalar. It holds no control characters: they are escaped by the pattern itself.
fn yaml(pattern: &str) -> String {
    if pattern.contains(['\\', '"']) { format!("'{}'", pattern.replace('\'', "''")) } else { format!("\"{pattern}\"") }
}
