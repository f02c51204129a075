//! From words to operations.

use super::{OWN_PID, Operation};
use crate::address::parse_address;
use crate::diagnostic::{did_you_mean, near_or_list};
use crate::read::syscalls::unknown_help;
use agent_monitor_common::class::{Class, USE, access_words, file, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::limit::ABSTRACT_NAME_BYTES;
use agent_monitor_common::name::{
    CAPABILITIES, IPV4, IPV6, PROTOCOLS, Privilege, SOCKET, SOCKET_KINDS, UNIX, anonymous,
};
use agent_monitor_common::privilege::NEVER;
use agent_monitor_common::syscall::{self, Abi};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Parses an operation, its object and the new object of a rename or link.
///
/// # Errors
/// What is wrong with the words, and what would be right.
pub fn parse(operation: &str, object: &str, new_object: Option<&str>) -> Result<Operation, String> {
    let (class, words) = operation.split_once(':').map_or((operation, None), |(class, words)| (class, Some(words)));
    let classes: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
    let class = Class::from_name(class)
        .ok_or_else(|| format!("unknown class `{class}` of operations: {}", near_or_list(class, &classes)))?;
    let access = match (class, words) {
        (Class::File | Class::Network, Some(words)) => accesses(class, words)?,
        (Class::File | Class::Network, None) => {
            return Err(format!(
                "operation `{operation}` has no access: write `{operation}:WORD`, like `{}`",
                example(class)
            ));
        }
        (_, None) => USE,
        (_, Some(_)) => return Err(format!("`{}` has no accesses: write `{}` alone", class.name(), class.name())),
    };
    if new_object.is_some() && !(class == Class::File && access & (file::RENAME | file::LINK) != 0) {
        return Err(format!("`{operation}` has no new object: only `file:rename` and `file:link` have one"));
    }
    match class {
        Class::File => file(access, object, new_object),
        Class::Exec => Ok(path_operation(class, access, object)?),
        Class::Network => Ok(simple(class, access, network_object(access, object)?)),
        Class::Privilege => Ok(simple(class, access, vec![privilege(object)?])),
        Class::Capability => Ok(simple(class, access, vec![capability(object)?])),
        Class::Syscall => Ok(simple(class, access, syscall(object)?)),
    }
}

fn example(class: Class) -> &'static str {
    if class == Class::File { "file:read" } else { "network:connect" }
}

fn accesses(class: Class, words: &str) -> Result<u16, String> {
    let known: Vec<&str> = access_words(class).iter().map(|(word, _)| *word).collect();
    words.split(',').try_fold(0, |access, word| {
        if word == "all" {
            return Err(format!("`{}:all` is no operation: name the accesses that it needs", class.name()));
        }
        let bit = access_words(class).iter().find(|(known, _)| *known == word).map(|(_, bit)| bit);
        let unknown =
            || format!("unknown access `{word}` of the class {}: {}", class.name(), near_or_list(word, &known));
        Ok(access | bit.ok_or_else(unknown)?)
    })
}

fn simple(class: Class, access: u16, object: Vec<u8>) -> Operation {
    Operation { class, access, object, new_object: None, directory: false, own: OwnEntry::default() }
}

fn file(access: u16, object: &str, new_object: Option<&str>) -> Result<Operation, String> {
    let (named, with) = match access & (file::RENAME | file::LINK) {
        0 => return path_operation(Class::File, access, object),
        file::RENAME => ("rename", file::RENAME | file::DELETE),
        file::LINK => ("link", file::LINK | file::CREATE),
        _ => return Err("a rename is no link: ask about one of them".to_owned()),
    };
    if access & !with != 0 {
        let other = if named == "rename" { "delete" } else { "create" };
        return Err(format!("`{named}` goes with no other access than `{other}`"));
    }
    let new = new_object.ok_or_else(|| format!("`file:{named}` needs a new object"))?;
    let operation = path_operation(Class::File, access & (file::RENAME | file::LINK), object)?;
    let to = path_operation(Class::File, access, new)?;
    // A link makes its new name, so it needs `create` whether or not the word is there.
    let access = if named == "link" { with } else { access };
    Ok(Operation { new_object: Some((to.object, access)), ..operation })
}

/// An operation on a path; a slash at its end says that it is a directory.
fn path_operation(class: Class, access: u16, text: &str) -> Result<Operation, String> {
    if anonymous::ALL.contains(&text) {
        return Ok(simple(class, access, text.as_bytes().to_vec()));
    }
    let (path, directory) = match text.strip_suffix('/') {
        Some(path) if !path.is_empty() => (path, true),
        _ => (text, text == "/"),
    };
    check_path(path)?;
    let own_name = format!("/proc/{OWN_PID}");
    let thread_name = format!("{own_name}/task/{OWN_PID}");
    let (object, own) = if let Some(rest) = below(path, "/proc/self") {
        (own_name.clone() + rest, OwnEntry { process: own_name.len() as u32, thread: 0 })
    } else if let Some(rest) = below(path, "/proc/thread-self") {
        let own = OwnEntry { process: own_name.len() as u32, thread: thread_name.len() as u32 };
        (thread_name + rest, own)
    } else {
        (path.to_owned(), OwnEntry::default())
    };
    Ok(Operation { class, access, object: object.into_bytes(), new_object: None, directory, own })
}

/// What follows `directory`, which `path` is or is below.
fn below<'p>(path: &'p str, directory: &str) -> Option<&'p str> {
    path.strip_prefix(directory).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_path(path: &str) -> Result<(), String> {
    if path.starts_with("anon:") {
        return Err(format!("`{path}` is no kind of nameless file: {}", near_or_list(path, anonymous::ALL)));
    }
    let Some(names) = path.strip_prefix('/') else {
        return Err(format!("`{path}` is not absolute: begin it with `/`"));
    };
    let wrong = |name: &str| matches!(name, "" | "." | "..") || name.contains('\0');
    if !names.is_empty() && names.split('/').any(wrong) {
        return Err(format!("`{path}` is no resolved path: it has an empty name, `.`, `..` or NUL"));
    }
    Ok(())
}

fn network_object(access: u16, text: &str) -> Result<Vec<u8>, String> {
    if access & network::CREATE != 0 {
        if access != network::CREATE {
            return Err("`create` goes with no other access: its object is a family of sockets".to_owned());
        }
        let words = || SOCKET_KINDS.iter().map(|(word, _)| *word);
        let found = SOCKET_KINDS.iter().find(|(word, _)| *word == text).map(|(_, kind)| vec![SOCKET, *kind]);
        let near = || did_you_mean(text, words()).unwrap_or_else(|| "write it like `inet6`".to_owned());
        return found.ok_or_else(|| format!("unknown family of sockets `{text}`: {}", near()));
    }
    if access & network::LISTEN != 0 && access != network::LISTEN {
        return Err("`listen` goes with no other access: its object is an address of one's own".to_owned());
    }
    let Some((protocol, rest)) = text.split_once(':') else {
        return Err(format!("`{text}` is no object of the network: write `tcp:10.1.2.3:443` or `unix:/run/socket`"));
    };
    if protocol == "unix" {
        return unix(rest);
    }
    let known: Vec<&str> = PROTOCOLS.iter().map(|(word, _)| *word).chain(["unix"]).collect();
    let number = PROTOCOLS.iter().find(|(word, _)| *word == protocol).map(|(_, number)| *number);
    let number = number.or_else(|| protocol.parse().ok());
    let number = number.ok_or_else(|| format!("unknown protocol `{protocol}`: {}", near_or_list(protocol, &known)))?;
    let (address, port) = endpoint(rest, protocol.starts_with("icmp"))?;
    Ok(internet(number, if access == network::LISTEN { address } else { destination(address) }, port))
}

fn unix(name: &str) -> Result<Vec<u8>, String> {
    match name.strip_prefix('@') {
        Some(name) if name.len() > ABSTRACT_NAME_BYTES => {
            return Err(format!("abstract name has {} bytes, more than {ABSTRACT_NAME_BYTES}", name.len()));
        }
        Some(_) => {}
        None => check_path(name)?,
    }
    Ok([&[UNIX], name.as_bytes()].concat())
}

fn endpoint(text: &str, portless: bool) -> Result<(IpAddr, u16), String> {
    let example = "write it like `tcp:10.1.2.3:443` or `tcp:[2001:db8::1]:443`";
    let (address, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, rest))) if address.contains(':') => {
            (address, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        Some(_) => (text, None),
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(format!("`{text}` has no brackets: {example}")),
            Some((address, port)) => (address, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = port.ok_or_else(|| format!("`{text}` is no address with a port: {example}"))?;
    let address = parse_address(address).map_err(|(message, help)| format!("{message}: {help}"))?;
    if port.is_empty() && portless {
        return Ok((address, 0));
    }
    let number = port.parse::<u16>().ok().filter(|number| number.to_string() == port);
    number.map(|port| (address, port)).ok_or_else(|| format!("`{port}` is not a port: {example}"))
}

/// The address that the kernel connects to: the unspecified address is the loopback address.
fn destination(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn internet(protocol: u8, address: IpAddr, port: u16) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    };
    [&[family, protocol], &port.to_be_bytes()[..], &octets].concat()
}

/// The operand of a system call: a name, or an interface and a number, like `i386:20`.
fn syscall(text: &str) -> Result<Vec<u8>, String> {
    if let Some(number) = syscall::number(text).or_else(|| text.parse().ok()) {
        return Ok(syscall::operand(Abi::Native, number.into()).to_vec());
    }
    if let Some((abi, number)) = text.split_once(':') {
        let abi = Abi::from_name(abi).filter(|abi| *abi != Abi::Native);
        let number = number.parse::<u16>().ok();
        let (Some(abi), Some(number)) = (abi, number) else {
            return Err(format!("`{text}` is no call of a foreign interface: write it like `i386:20` or `x32:59`"));
        };
        return Ok(syscall::operand(abi, number.into()).to_vec());
    }
    if text.starts_with('@') {
        return Err(format!("`{text}` is a group: ask about one of its calls, like `mount`"));
    }
    Err(format!("unknown system call `{text}`: {}", unknown_help(text)))
}

/// The operand of a privilege. One that no policy can grant has one that no rule names.
fn privilege(text: &str) -> Result<u8, String> {
    const NO_RULE: u8 = 255;
    if NEVER.iter().any(|(name, _)| *name == text) {
        return Ok(NO_RULE);
    }
    let known: Vec<&str> = Privilege::ALL.iter().map(|one| one.name()).collect();
    let near = || near_or_list(text, &known);
    Privilege::from_name(text).map(|one| one as u8).ok_or_else(|| format!("unknown privilege `{text}`: {}", near()))
}

fn capability(text: &str) -> Result<u8, String> {
    let near =
        || did_you_mean(text, CAPABILITIES.iter().copied()).unwrap_or_else(|| "write it like `CAP_CHOWN`".to_owned());
    let number = CAPABILITIES.iter().position(|name| *name == text).map(|number| number as u8);
    number.ok_or_else(|| format!("unknown capability `{text}`: {}", near()))
}
