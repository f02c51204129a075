//! Socket addresses as operands.

use crate::image::Text;
use crate::kernel::{self, Kernel, address, load, offset, read};
use crate::operation::{Operation, Outcome};
use crate::path::{place_at, walk};
use crate::scratch::{END, TEXT_BYTES};
use agent_monitor_common::class::{Class, Fault};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::limit::ABSTRACT_NAME_BYTES;
use agent_monitor_common::name::{IPV4, IPV4_BYTES, IPV6, IPV6_BYTES, UNIX, protocol_byte};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Address families (`include/linux/socket.h`).
pub const AF_UNSPEC: u16 = 0;
/// Unix sockets.
pub const AF_UNIX: u16 = 1;
/// IPv4.
pub const AF_INET: u16 = 2;
/// IPv6.
pub const AF_INET6: u16 = 10;

/// An internet address and port, both in network order, IPv4 in `address[3]` behind the mapped prefix.
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// The protocol's operand byte.
    pub protocol: u8,
    /// Port, as it stands in memory.
    pub port: u16,
    /// Address, four numbers as they stand in memory.
    pub address: [u32; 4],
    /// Whether it is an IPv4 address.
    pub v4: bool,
}

/// The word before the last of an IPv4-mapped IPv6 address, as it stands in memory.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();
/// 127.0.0.1.
const LOOPBACK: u32 = 0x7f00_0001_u32.to_be();

impl Endpoint {
    /// An IPv4 endpoint.
    #[inline(always)]
    pub fn v4(protocol: u32, address: u32, port: u16) -> Self {
        Self { protocol: protocol_byte(protocol), port, address: [0, 0, MAPPED, address], v4: true }
    }

    /// An IPv6 endpoint; a mapped address is the IPv4 address.
    #[inline(always)]
    pub fn v6(protocol: u32, address: [u32; 4], port: u16) -> Self {
        let v4 = address[0] == 0 && address[1] == 0 && address[2] == MAPPED;
        Self { protocol: protocol_byte(protocol), port, address, v4 }
    }

    /// The same as a destination: the unspecified address is the loopback address.
    #[inline(always)]
    pub fn destination(mut self) -> Self {
        if self.v4 {
            if self.address[3] == 0 {
                self.address[3] = LOOPBACK;
            }
        } else if self.address[0] | self.address[1] | self.address[2] | self.address[3] == 0 {
            self.address[3] = 1u32.to_be();
        }
        self
    }

    /// The endpoint in a `struct sockaddr` of the kernel; `Ok(None)` for a family that is not judged by address.
    /// `unspecified` is the family that `AF_UNSPEC` stands for.
    #[inline(always)]
    pub fn of_sockaddr(name: u64, length: u32, protocol: u32, unspecified: u16) -> Result<Option<Self>, Fault> {
        const V4_BYTES: u32 = 8;
        const V6_BYTES: u32 = 24;
        if length < 2 {
            return Err(Fault::AddressUnreadable);
        }
        let mut family: u16 = read(name).ok_or(Fault::AddressUnreadable)?;
        if family == AF_UNSPEC {
            family = unspecified;
        }
        if family == AF_INET {
            if length < V4_BYTES {
                return Err(Fault::AddressUnreadable);
            }
            // struct sockaddr_in: { u16 family; be16 port; be32 address }
            let at: [u16; 4] = read(name).ok_or(Fault::AddressUnreadable)?;
            let address = u32::from(at[2]) | u32::from(at[3]) << 16;
            Ok(Some(Self::v4(protocol, address, at[1])))
        } else if family == AF_INET6 {
            if length < V6_BYTES {
                return Err(Fault::AddressUnreadable);
            }
            // struct sockaddr_in6: { u16 family; be16 port; be32 flowinfo; u8 address[16] }
            let at: [u32; 6] = read(name).ok_or(Fault::AddressUnreadable)?;
            Ok(Some(Self::v6(protocol, [at[2], at[3], at[4], at[5]], (at[0] >> 16) as u16)))
        } else {
            Ok(None)
        }
    }

    /// The local endpoint of a `struct sock`.
    #[inline(always)]
    pub fn local(sk: Kernel) -> Option<Self> {
        let family: u16 = load(sk, &kernel::SOCK_FAMILY);
        let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
        let port: u16 = load(sk, &kernel::SOCK_LOCAL_PORT);
        match family {
            AF_INET => Some(Self::v4(protocol.into(), load(sk, &kernel::SOCK_LOCAL_V4), port.to_be())),
            AF_INET6 => {
                let at = address(sk, &kernel::SOCK_LOCAL_V6);
                Some(Self::v6(protocol.into(), read(at)?, port.to_be()))
            }
            _ => None,
        }
    }

    /// Writes the operand.
    #[inline(always)]
    pub fn text(&self, buffer: &mut [u8; TEXT_BYTES]) -> Text {
        let length = if self.v4 { IPV4_BYTES } else { IPV6_BYTES };
        let start = END as usize - length;
        let port = self.port.to_ne_bytes();
        buffer[start] = if self.v4 { IPV4 } else { IPV6 };
        buffer[start + 1] = self.protocol;
        buffer[start + 2] = port[0];
        buffer[start + 3] = port[1];
        if self.v4 {
            put(buffer, start + 4, self.address[3]);
        } else {
            put(buffer, start + 4, self.address[0]);
            put(buffer, start + 8, self.address[1]);
            put(buffer, start + 12, self.address[2]);
            put(buffer, start + 16, self.address[3]);
        }
        Text { base: buffer.as_ptr(), start: start as u64 }
    }
}

#[inline(always)]
fn put(buffer: &mut [u8; TEXT_BYTES], at: usize, word: u32) {
    let bytes = word.to_ne_bytes();
    buffer[at] = bytes[0];
    buffer[at + 1] = bytes[1];
    buffer[at + 2] = bytes[2];
    buffer[at + 3] = bytes[3];
}

impl Operation<'_> {
    /// Judges `access` to an endpoint.
    #[inline(always)]
    pub fn endpoint(&mut self, endpoint: Endpoint, access: u16) -> Outcome {
        let object = endpoint.text(&mut self.scratch.object);
        self.judge(Class::Network, object, OwnEntry::default(), access)
    }

    /// Judges `access` to a unix socket by its own path or abstract name; `None` where it has neither.
    #[inline(always)]
    pub fn unix(&mut self, sk: Kernel, access: u16) -> Option<Outcome> {
        let object = match unix_name(&mut self.scratch.object, sk) {
            Ok(object) => object?,
            Err(fault) => return Some(Outcome::fault(Class::Network, access, fault)),
        };
        Some(self.judge(Class::Network, object, OwnEntry::default(), access))
    }
}

/// The operand of a unix `struct sock`.
#[inline(always)]
fn unix_name(buffer: &mut [u8; TEXT_BYTES], sk: Kernel) -> Result<Option<Text>, Fault> {
    let place = place_at(address(sk, &kernel::UNIX_SOCK_PATH)).ok_or(Fault::AddressUnreadable)?;
    if place.dentry != 0 {
        let path = walk(buffer, place)?;
        return prefix(buffer, path.start).map(Some);
    }
    let name: u64 = read(address(sk, &kernel::UNIX_SOCK_ADDRESS)).ok_or(Fault::AddressUnreadable)?;
    if name == 0 {
        return Ok(None);
    }
    let length: u32 = read(name + offset(&kernel::UNIX_ADDRESS_LENGTH) as u64).ok_or(Fault::AddressUnreadable)?;
    abstract_name(buffer, name + offset(&kernel::UNIX_ADDRESS_NAME) as u64, length).map(Some)
}

/// The operand of the abstract name in a `struct sockaddr_un` of `length` bytes: `u@` and the name without its NUL.
#[inline(always)]
pub fn abstract_name(buffer: &mut [u8; TEXT_BYTES], sockaddr: u64, length: u32) -> Result<Text, Fault> {
    const FAMILY_AND_NUL: u32 = 3;
    if length < FAMILY_AND_NUL || length > FAMILY_AND_NUL + ABSTRACT_NAME_BYTES as u32 {
        return Err(Fault::AddressUnreadable);
    }
    let length = u64::from(length - FAMILY_AND_NUL) & 127;
    let start = (END - length) & (END - 1);
    let start = if length == 0 { END } else { start };
    if length != 0 {
        // SAFETY: start + length is END, which is inside of the buffer.
        let failed = unsafe {
            bpf_probe_read_kernel(
                buffer.as_mut_ptr().add((start & (END - 1)) as usize).cast(),
                length as u32,
                (sockaddr + u64::from(FAMILY_AND_NUL)) as *const _,
            )
        };
        if failed != 0 {
            return Err(Fault::AddressUnreadable);
        }
    }
    let start = (start - 1) & (END - 1);
    buffer[start as usize] = b'@';
    prefix(buffer, start)
}

/// Puts [`UNIX`] before the operand at `start`.
#[inline(always)]
fn prefix(buffer: &mut [u8; TEXT_BYTES], start: u64) -> Result<Text, Fault> {
    if start == 0 {
        return Err(Fault::PathTooLong);
    }
    let start = (start - 1) & (END - 1);
    buffer[start as usize] = UNIX;
    Ok(Text { base: buffer.as_ptr(), start })
}
