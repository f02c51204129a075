//! The bytes of operands as text: for records, reports and `explain`.

use crate::pattern::readable;
use agent_monitor_common::class::Class;
use agent_monitor_common::name::{CAPABILITIES, IPV4, IPV6, PROTOCOLS, Privilege, SOCKET, SOCKET_KINDS, UNIX};
use agent_monitor_common::syscall::{self, Abi};
use std::fmt;
use std::net::IpAddr;

/// An operand as text. Bytes that are not UTF-8 and control bytes are `\xHH`, a backslash is doubled: no byte is lost, and
/// no text can pretend to be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectText {
    /// A path, or the word for a file without a name.
    Path(String),
    /// An internet address.
    Internet {
        /// `inet` or `inet6`.
        family: &'static str,
        /// `tcp`, or the number of a protocol that no rule can name.
        protocol: String,
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// The path of a unix socket, or `@` and its abstract name.
    Unix(String),
    /// The kind of a socket that is made: the word of a rule, or a number.
    Socket(String),
    /// The name of a system call, privilege or capability.
    Name(String),
    /// Bytes that no program of ours writes.
    Unknown(String),
}

impl fmt::Display for ObjectText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet { protocol, address: IpAddr::V4(address), port, .. } => {
                write!(f, "{protocol}:{address}:{port}")
            }
            Self::Internet { protocol, address: IpAddr::V6(address), port, .. } => {
                write!(f, "{protocol}:[{address}]:{port}")
            }
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Path(text) | Self::Socket(text) | Self::Name(text) | Self::Unknown(text) => f.write_str(text),
        }
    }
}

/// The operand `object` of `class` as text.
#[must_use]
pub fn describe_object(class: Class, object: &[u8]) -> ObjectText {
    let unknown = || ObjectText::Unknown(readable(object));
    match (class, object) {
        (Class::File | Class::Exec, _) => ObjectText::Path(readable(object)),
        (Class::Network, [SOCKET, kind]) => {
            let word = SOCKET_KINDS.iter().find(|(_, number)| number == kind).map(|(word, _)| (*word).to_owned());
            ObjectText::Socket(word.unwrap_or_else(|| kind.to_string()))
        }
        (Class::Network, [UNIX, path @ ..]) => ObjectText::Unix(readable(path)),
        (Class::Network, _) => internet(object).unwrap_or_else(unknown),
        (Class::Privilege, [number]) => {
            Privilege::from_byte(*number).map_or_else(unknown, |one| ObjectText::Name(one.name().to_owned()))
        }
        (Class::Capability, [number]) => {
            let name = CAPABILITIES.get(usize::from(*number)).map(|name| (*name).to_owned());
            ObjectText::Name(name.unwrap_or_else(|| number.to_string()))
        }
        (Class::Syscall, _) => syscall_name(object).map_or_else(unknown, ObjectText::Name),
        _ => unknown(),
    }
}

/// A system call as people write it: `mount`, `471` for one without a name, `i386:20` for one of another interface.
fn syscall_name(object: &[u8]) -> Option<String> {
    let [abi, high, low] = object else { return None };
    let number = u16::from_be_bytes([*high, *low]);
    match Abi::from_byte(*abi)? {
        Abi::Native => Some(syscall::name(number).map_or_else(|| number.to_string(), str::to_owned)),
        abi => Some(format!("{}:{number}", abi.name())),
    }
}

fn internet(object: &[u8]) -> Option<ObjectText> {
    let (head, rest) = object.split_first_chunk::<4>()?;
    let [family, protocol, high, low] = *head;
    let (family, address): (_, IpAddr) = match family {
        IPV4 => ("inet", <[u8; 4]>::try_from(rest).ok()?.into()),
        IPV6 => ("inet6", <[u8; 16]>::try_from(rest).ok()?.into()),
        _ => return None,
    };
    let name = PROTOCOLS.iter().find(|(_, number)| *number == protocol).map(|(name, _)| (*name).to_owned());
    let protocol = name.unwrap_or_else(|| protocol.to_string());
    Some(ObjectText::Internet { family, protocol, address, port: u16::from_be_bytes([high, low]) })
}
