//! Socket addresses as operands.

use crate::image::Text;
use crate::kernel::{self, Kernel, address, load, offset, opaque, read};
use crate::operation::Operation;
use crate::path::{place_at, walk};
use crate::scratch::{Buffer, END, reload};
use agent_monitor_common::class::{Builtin, Class, Fault, Reason, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::limit::ABSTRACT_NAME_BYTES;
use agent_monitor_common::name::{IPV4, IPV4_BYTES, IPV6, IPV6_BYTES, UNIX, protocol_byte};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

// Address families (`include/linux/socket.h`).
/// No family.
pub const AF_UNSPEC: u16 = 0;
/// Unix sockets.
pub const AF_UNIX: u16 = 1;
/// IPv4.
pub const AF_INET: u16 = 2;
/// IPv6.
pub const AF_INET6: u16 = 10;
/// Netlink.
pub const AF_NETLINK: u16 = 16;

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

/// Who sends to an address.
#[derive(Clone, Copy)]
pub struct Sender {
    /// Address of the `struct sock`.
    pub sk: u64,
    /// Whether the message may have another address or device to send from, by control messages.
    pub elsewhere: bool,
}

impl Sender {
    /// A socket, by no message.
    #[inline(always)]
    pub fn socket(sk: Kernel) -> Self {
        Self { sk: sk as u64, elsewhere: false }
    }

    /// Whether the unspecified IPv4 address may lead elsewhere than to the loopback address.
    #[inline(always)]
    fn leads_elsewhere(self) -> bool {
        let device: u32 = read(self.sk + offset(&kernel::SOCK_DEVICE) as u64);
        let source: u32 = read(self.sk + offset(&kernel::INET_SOURCE) as u64);
        let unicast: u32 = read(self.sk + offset(&kernel::INET_DEVICE) as u64);
        self.elsewhere || device != 0 || unicast != 0 || (source != 0 && source != LOOPBACK)
    }
}

/// The word before the last of an IPv4-mapped IPv6 address, as it stands in memory.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();
/// 127.0.0.1.
pub const LOOPBACK: u32 = 0x7f00_0001_u32.to_be();

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

    /// The same as a destination of this sender.
    ///
    /// The unspecified IPv4 address is the loopback address only where the sender has no other address to send from:
    /// else it is that address, or the one of the device to send by (`ip_route_output_key_hash_rcu()` in
    /// `net/ipv4/route.c`). Then it is judged as the unspecified address, which only a rule for all addresses allows. The
    /// unspecified IPv6 address is the IPv4 loopback address for a socket that has a mapped address (`tcp_v6_connect()` in
    /// `net/ipv6/tcp_ipv6.c`).
    #[inline(always)]
    pub fn destination_of(mut self, from: Sender) -> Self {
        if !self.unspecified() {
            return self;
        }
        if self.v4 {
            if from.leads_elsewhere() {
                return self;
            }
        } else if read::<u16>(from.sk + offset(&kernel::SOCK_FAMILY) as u64) == AF_INET6 {
            let source: [u32; 4] = read(from.sk + offset(&kernel::SOCK_LOCAL_V6) as u64);
            if source[2] == MAPPED {
                self = Self { address: [0, 0, MAPPED, 0], v4: true, ..self };
            }
        }
        self.destination()
    }

    /// The endpoint in a `struct sockaddr` of the kernel.
    /// `unspecified` is the family that `AF_UNSPEC` stands for.
    // VERIFIER: results come in `found`, see `operation.rs`.
    #[inline(always)]
    pub fn of_sockaddr(name: u64, length: u32, protocol: u32, unspecified: u16, found: &mut Self) -> Found {
        const V4_BYTES: u32 = 8;
        const V6_BYTES: u32 = 24;
        if length < 2 {
            return Found::Short;
        }
        let mut family: u16 = read(name);
        if family == AF_UNSPEC {
            family = unspecified;
        }
        if family == AF_INET {
            if length < V4_BYTES {
                return Found::Short;
            }
            // struct sockaddr_in: { u16 family; be16 port; be32 address }
            let at: [u16; 4] = read(name);
            let address = u32::from(at[2]) | u32::from(at[3]) << 16;
            *found = Self::v4(protocol, address, at[1]);
            Found::Endpoint
        } else if family == AF_INET6 {
            if length < V6_BYTES {
                return Found::Short;
            }
            // struct sockaddr_in6: { u16 family; be16 port; be32 flowinfo; u8 address[16] }
            let at: [u32; 6] = read(name);
            *found = Self::v6(protocol, [at[2], at[3], at[4], at[5]], (at[0] >> 16) as u16);
            Found::Endpoint
        } else {
            Found::OtherFamily
        }
    }

    /// The local endpoint of an internet `struct sock` of `family`.
    #[inline(always)]
    pub fn local(sk: Kernel, family: u16) -> Self {
        let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
        let port: u16 = load(sk, &kernel::SOCK_LOCAL_PORT);
        if family == AF_INET {
            Self::v4(protocol.into(), load(sk, &kernel::SOCK_LOCAL_V4), port.to_be())
        } else {
            Self::v6(protocol.into(), read(address(sk, &kernel::SOCK_LOCAL_V6)), port.to_be())
        }
    }

    /// The endpoint that an internet `struct sock` of `family` is connected to.
    #[inline(always)]
    pub fn peer(sk: Kernel, family: u16) -> Self {
        let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
        let port: u16 = load(sk, &kernel::SOCK_PEER_PORT);
        if family == AF_INET {
            Self::v4(protocol.into(), load(sk, &kernel::SOCK_PEER_V4), port)
        } else {
            Self::v6(protocol.into(), read(address(sk, &kernel::SOCK_PEER_V6)), port)
        }
    }

    /// Whether it is no address: that of the peer of a socket which is not connected.
    #[inline(always)]
    pub fn unspecified(&self) -> bool {
        let upper = self.address[0] | self.address[1];
        upper == 0 && self.address[3] == 0 && (self.v4 || self.address[2] == 0)
    }

    /// Where the datagram goes that a UDP socket of `family` has begun and not sent yet: what is sent now becomes part of it,
    /// whatever address it names (`udp_sendmsg()` in `net/ipv4/udp.c`, `udpv6_sendmsg()` in `net/ipv6/udp.c`). `None` where
    /// there is none.
    #[inline(always)]
    pub fn pending(sk: Kernel, family: u16) -> Option<Self> {
        let pending: u32 = read(address(sk, &kernel::UDP_PENDING));
        if pending == 0 {
            return None;
        }
        let protocol: u16 = load(sk, &kernel::SOCK_PROTOCOL);
        // A socket for IPv6 may have begun one by IPv4.
        Some(if family == AF_INET || pending == u32::from(AF_INET) {
            Self::v4(protocol.into(), read(address(sk, &kernel::CORK_V4)), read(address(sk, &kernel::CORK_V4_PORT)))
        } else {
            Self::v6(protocol.into(), read(address(sk, &kernel::CORK_V6)), read(address(sk, &kernel::CORK_V6_PORT)))
        })
    }

    /// No endpoint yet.
    pub const NONE: Self = Self { protocol: 0, port: 0, address: [0; 4], v4: false };

    /// Writes the operand.
    #[inline(always)]
    pub fn text(&self, buffer: Buffer) -> Text {
        let length = if self.v4 { IPV4_BYTES } else { IPV6_BYTES };
        let start = END as usize - length;
        let port = self.port.to_ne_bytes();
        buffer.put(start, if self.v4 { IPV4 } else { IPV6 });
        buffer.put(start + 1, self.protocol);
        buffer.put(start + 2, port[0]);
        buffer.put(start + 3, port[1]);
        if self.v4 {
            put(buffer, start + 4, self.address[3]);
        } else {
            put(buffer, start + 4, self.address[0]);
            put(buffer, start + 8, self.address[1]);
            put(buffer, start + 12, self.address[2]);
            put(buffer, start + 16, self.address[3]);
        }
        buffer.text(start as u64)
    }
}

#[inline(always)]
fn put(buffer: Buffer, at: usize, word: u32) {
    let bytes = word.to_ne_bytes();
    buffer.put(at, bytes[0]);
    buffer.put(at + 1, bytes[1]);
    buffer.put(at + 2, bytes[2]);
    buffer.put(at + 3, bytes[3]);
}

/// What a socket address turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Found {
    /// An internet endpoint.
    Endpoint,
    /// Of a family that is not judged by address.
    OtherFamily,
    /// Shorter than its family says, so not to be judged.
    Short,
}

/// Whether what an internet socket sends goes by way of other addresses, by an option that it was given before.
#[inline(always)]
pub fn is_routed(sk: u64) -> bool {
    let options: u64 = read(sk + offset(&kernel::INET_OPTIONS) as u64);
    if options != 0 && read::<u8>(options + offset(&kernel::IP_OPTIONS_ROUTE) as u64) != 0 {
        return true;
    }
    let six: u64 = read(sk + offset(&kernel::INET_V6) as u64);
    let options: u64 = if six == 0 { 0 } else { read(six + offset(&kernel::V6_OPTIONS) as u64) };
    options != 0 && read::<u64>(options + offset(&kernel::V6_OPTIONS_ROUTE) as u64) != 0
}

impl Operation<'_> {
    /// Makes what was noted a denial if the socket sends by way of other addresses. Not left to where packets leave: TCP
    /// sends again from a timer, in nobody's name.
    #[inline(always)]
    pub fn deny_if_routed(&mut self, sk: Kernel) {
        if is_routed(sk as u64) {
            self.becomes_builtin(Builtin::SourceRoute);
        }
    }

    /// Judges `access` to an endpoint.
    #[inline(always)]
    pub fn judge_endpoint(&mut self, endpoint: Endpoint, access: u16) {
        let object = endpoint.text(self.scratch.object());
        let object = self.set_object(object);
        self.judge(Class::Network, object, OwnEntry::default(), access);
    }

    /// Judges whether the agent may listen at an endpoint. Who listens at `::` listens at 0.0.0.0 as well, unless the socket
    /// is one for IPv6 alone, which a bit tells that moves from kernel to kernel; so both are needed.
    #[inline(always)]
    pub fn judge_listen(&mut self, endpoint: Endpoint) {
        self.judge_endpoint(endpoint, network::LISTEN);
        if !endpoint.v4 && endpoint.unspecified() && reload(&self.scratch.header.reason) == Reason::AllowRule as u8 {
            let both = Endpoint { v4: true, address: [0, 0, MAPPED, 0], ..endpoint };
            self.judge_endpoint(both, network::LISTEN);
        }
    }

    /// Judges `access` to the endpoint in a `struct sockaddr` of the kernel; `false` for a family that is not judged by
    /// address. `unspecified` is the family that `AF_UNSPEC` stands for.
    #[inline(always)]
    pub fn judge_sockaddr(
        &mut self,
        name: u64,
        length: u32,
        protocol: u32,
        unspecified: u16,
        access: u16,
        from: Sender,
    ) -> bool {
        let mut endpoint = Endpoint::NONE;
        match Endpoint::of_sockaddr(name, length, protocol, unspecified, &mut endpoint) {
            Found::OtherFamily => return false,
            Found::Short => self.fault(Class::Network, access, Fault::AddressUnreadable),
            Found::Endpoint => {
                if access == network::LISTEN {
                    self.judge_listen(endpoint);
                } else {
                    self.judge_endpoint(endpoint.destination_of(from), access);
                }
            }
        }
        true
    }

    /// Judges `access` to a unix socket by its own path or abstract name; `false` where it has neither.
    #[inline(always)]
    pub fn judge_unix(&mut self, sk: Kernel, access: u16) -> bool {
        let place = place_at(address(sk, &kernel::UNIX_SOCK_PATH));
        let named: u64 = read(address(sk, &kernel::UNIX_SOCK_ADDRESS));
        let object = if place.dentry != 0 {
            walk(self.scratch.object(), place).and_then(|path| prefix(self.scratch.object(), path.start))
        } else if named != 0 {
            let length: u32 = read(named + offset(&kernel::UNIX_ADDRESS_LENGTH) as u64);
            abstract_name(self.scratch.object(), named + offset(&kernel::UNIX_ADDRESS_NAME) as u64, length)
        } else {
            return false;
        };
        let found = object.map(
            #[inline(always)]
            |object| self.set_object(object),
        );
        self.judge_found(Class::Network, found, access);
        true
    }
}

/// The operand of the abstract name in a `struct sockaddr_un` of `length` bytes: `u@` and the name without its NUL.
#[inline(always)]
pub fn abstract_name(buffer: Buffer, sockaddr: u64, length: u32) -> Result<Text, Fault> {
    const FAMILY_AND_NUL: u32 = 3;
    if length < FAMILY_AND_NUL || length > FAMILY_AND_NUL + ABSTRACT_NAME_BYTES as u32 {
        return Err(Fault::AddressUnreadable);
    }
    let length = opaque(u64::from(length - FAMILY_AND_NUL)) & 127;
    let start = END - length;
    if length != 0 {
        // SAFETY: start + length is END, which is inside of the buffer.
        let failed = unsafe {
            bpf_probe_read_kernel(
                buffer.base.add((opaque(start) & (END - 1)) as usize).cast(),
                length as u32,
                (sockaddr + u64::from(FAMILY_AND_NUL)) as *const _,
            )
        };
        if failed != 0 {
            return Err(Fault::AddressUnreadable);
        }
    }
    let start = opaque(start - 1) & (END - 1);
    buffer.put(start as usize, b'@');
    prefix(buffer, start)
}

/// Puts [`UNIX`] before the operand at `start`.
#[inline(always)]
fn prefix(buffer: Buffer, start: u64) -> Result<Text, Fault> {
    if start <= 1 {
        return Err(Fault::PathTooLong);
    }
    let start = opaque(start - 1) & (END - 1);
    buffer.put(start as usize, UNIX);
    Ok(buffer.text(start))
}
