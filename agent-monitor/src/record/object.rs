//! The object of an operation: from the kernel's operand to fields of a record, and back for `suggest`.

use std::net::{Ipv4Addr, Ipv6Addr};

use agent_monitor_common::class::Class;
use agent_monitor_common::name::{self, Privilege};
use agent_monitor_policy::{ObjectText, describe_object, operation};
use serde::{Deserialize, Serialize};

use super::escape::{escape, unescape};

/// What an operation is on. Which fields are there follows from the class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Object {
    /// file, exec: the resolved path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// file: the new name of a rename or link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_path: Option<String>,
    /// network: address family, or the kind of a socket that is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// network: protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// network: address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// network: port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// network: path of a unix socket, or `@` and its abstract name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<String>,
    /// syscall, privilege, capability: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// privilege: process id of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
}

/// The operand is none that a program of ours writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operand of class {} has no meaning", .0.name())]
pub struct OperandError(pub Class);

impl Object {
    /// The fields of an operand. An empty one (a fault before the object was known) has none.
    ///
    /// # Errors
    /// See [`OperandError`].
    pub fn from_operand(class: Class, object: &[u8], new_object: &[u8], value: u64) -> Result<Self, OperandError> {
        let refused = OperandError(class);
        let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| escape(bytes));
        let mut fields = Self::default();
        if object.is_empty() && new_object.is_empty() {
            return Ok(fields);
        }
        match class {
            Class::File | Class::Exec => {
                fields.path = text(object);
                fields.new_path = text(new_object);
            }
            Class::Network => fields.set_network(object).ok_or(refused)?,
            Class::Syscall => match describe_object(class, object) {
                ObjectText::Name(name) => fields.name = Some(name),
                _ => return Err(refused),
            },
            Class::Privilege => {
                let [number] = object else { return Err(refused) };
                fields.name = Some(Privilege::from_byte(*number).ok_or(refused)?.name().to_owned());
                fields.target = (value != 0).then_some(value);
            }
            Class::Capability => {
                let [number] = object else { return Err(refused) };
                let known = name::CAPABILITIES.get(usize::from(*number));
                fields.name = Some(known.map_or_else(|| format!("CAP_{number}"), |name| (*name).to_owned()));
            }
        }
        Ok(fields)
    }

    fn set_network(&mut self, operand: &[u8]) -> Option<()> {
        let (first, rest) = operand.split_first()?;
        match (*first, rest) {
            (name::SOCKET, [kind]) => self.family = Some(socket_word(*kind)),
            (name::IPV4, [protocol, p0, p1, a, b, c, d]) => {
                self.set_address("inet", *protocol, [*p0, *p1], Ipv4Addr::new(*a, *b, *c, *d).to_string());
            }
            (name::IPV6, [protocol, p0, p1, address @ ..]) => {
                let address: [u8; 16] = address.try_into().ok()?;
                self.set_address("inet6", *protocol, [*p0, *p1], Ipv6Addr::from(address).to_string());
            }
            (name::UNIX, path) => {
                self.family = Some("unix".to_owned());
                self.unix = Some(escape(path));
            }
            _ => return None,
        }
        Some(())
    }

    fn set_address(&mut self, family: &str, protocol: u8, port: [u8; 2], address: String) {
        self.family = Some(family.to_owned());
        self.protocol = Some(protocol_word(protocol));
        self.address = Some(address);
        self.port = Some(u16::from_be_bytes(port));
    }

    /// The operand and the new operand that these fields were made of; `None` where they are incomplete.
    pub fn to_operand(&self, class: Class) -> Option<(Vec<u8>, Vec<u8>)> {
        let bytes = |field: &Option<String>| field.as_deref().map_or(Some(Vec::new()), unescape);
        let operand = match class {
            Class::File | Class::Exec => bytes(&self.path)?,
            Class::Network => self.network_operand()?,
            Class::Syscall => operation::parse("syscall", self.name.as_deref()?, None).ok()?.object,
            Class::Privilege => vec![Privilege::from_name(self.name.as_deref()?)? as u8],
            Class::Capability => {
                let known = name::CAPABILITIES.iter().position(|name| Some(*name) == self.name.as_deref())?;
                vec![u8::try_from(known).ok()?]
            }
        };
        Some((operand, bytes(&self.new_path)?))
    }

    fn network_operand(&self) -> Option<Vec<u8>> {
        if let Some(path) = &self.unix {
            return Some([&[name::UNIX], unescape(path)?.as_slice()].concat());
        }
        let (Some(protocol), Some(address), Some(port)) = (&self.protocol, &self.address, self.port) else {
            let family = self.family.as_deref()?;
            let known = name::SOCKET_KINDS.iter().find(|(word, _)| *word == family);
            let kind = known.map_or_else(|| family.strip_prefix("family-")?.parse().ok(), |(_, kind)| Some(*kind))?;
            return Some(vec![name::SOCKET, kind]);
        };
        let known = name::PROTOCOLS.iter().find(|(word, _)| word == protocol);
        let number =
            known.map_or_else(|| protocol.strip_prefix("protocol-")?.parse().ok(), |(_, number)| Some(*number))?;
        let [p0, p1] = port.to_be_bytes();
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            return Some([&[name::IPV4, number, p0, p1], &address.octets()[..]].concat());
        }
        Some([&[name::IPV6, number, p0, p1], &address.parse::<Ipv6Addr>().ok()?.octets()[..]].concat())
    }
}

fn socket_word(kind: u8) -> String {
    let known = name::SOCKET_KINDS.iter().find(|(_, number)| *number == kind);
    known.map_or_else(|| format!("family-{kind}"), |(word, _)| (*word).to_owned())
}

fn protocol_word(protocol: u8) -> String {
    let known = name::PROTOCOLS.iter().find(|(_, number)| *number == protocol);
    known.map_or_else(|| format!("protocol-{protocol}"), |(word, _)| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back(class: Class, object: &[u8], new_object: &[u8]) -> Object {
        let fields = Object::from_operand(class, object, new_object, 0).expect("operand is valid");
        assert_eq!(fields.to_operand(class), Some((object.to_vec(), new_object.to_vec())), "{fields:?}");
        fields
    }

    #[test]
    fn operands_become_fields_and_come_back() {
        let object = comes_back(Class::File, b"/a\xff\n", b"/b\\");
        assert_eq!((object.path.as_deref(), object.new_path.as_deref()), (Some("/a\\xff\\x0a"), Some("/b\\\\")));
        comes_back(Class::Exec, b"/bin/sh", b"");
        let object = comes_back(Class::Network, &[name::IPV4, 6, 1, 187, 10, 1, 2, 3], b"");
        let fields = (object.protocol.as_deref(), object.address.as_deref(), object.port);
        assert_eq!(fields, (Some("tcp"), Some("10.1.2.3"), Some(443)));
        let v6 = [&[name::IPV6, 99, 0, 53][..], &Ipv6Addr::LOCALHOST.octets()].concat();
        let object = comes_back(Class::Network, &v6, b"");
        assert_eq!((object.protocol.as_deref(), object.address.as_deref()), (Some("protocol-99"), Some("::1")));
        assert_eq!(comes_back(Class::Network, b"u@x\0y", b"").unix.as_deref(), Some("@x\\x00y"));
        for (word, kind) in name::SOCKET_KINDS {
            assert_eq!(comes_back(Class::Network, &[name::SOCKET, *kind], b"").family.as_deref(), Some(*word));
        }
        comes_back(Class::Network, &[name::SOCKET, 255], b"");
        for (operand, word) in
            [([0, 0, 165], "mount"), ([0, 1, 215], "471"), ([1, 0, 20], "i386:20"), ([2, 2, 8], "x32:520")]
        {
            assert_eq!(comes_back(Class::Syscall, &operand, b"").name.as_deref(), Some(word));
        }
        assert_eq!(comes_back(Class::Capability, &[0], b"").name.as_deref(), Some("CAP_CHOWN"));
        assert_eq!(comes_back(Class::Privilege, &[2], b"").name.as_deref(), Some("signal-any"));
    }

    #[test]
    fn operands_that_no_program_writes_are_refused() {
        let network: [&[u8]; 5] = [b"4", b"4\x06\0\x01abc", b"6\x06\0\x01abc", b"c", b"x"];
        for operand in network {
            assert_eq!(Object::from_operand(Class::Network, operand, b"", 0), Err(OperandError(Class::Network)));
        }
        assert_eq!(Object::from_operand(Class::Privilege, &[77], b"", 0), Err(OperandError(Class::Privilege)));
        assert_eq!(Object::from_operand(Class::Capability, &[1, 2], b"", 0), Err(OperandError(Class::Capability)));
    }

    #[test]
    fn a_fault_without_an_object_has_no_fields() {
        let object = Object::from_operand(Class::Network, b"", b"", 0).expect("empty operands are faults");
        assert_eq!(serde_json::to_string(&object).expect("serialises"), "{}");
    }
}
