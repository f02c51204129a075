//! The numbers that stand for names on both sides: network operands, socket kinds, privileges, capabilities.

pub use crate::privilege::Privilege;

/// First byte of the operand of `create`: followed by a [`SocketKind`].
pub const SOCKET: u8 = b'c';
/// First byte of an IPv4 operand: followed by protocol, port (2 bytes, big endian), address (4 bytes).
pub const IPV4: u8 = b'4';
/// First byte of an IPv6 operand: followed by protocol, port (2 bytes, big endian), address (16 bytes).
pub const IPV6: u8 = b'6';
/// First byte of a unix operand: followed by the peer's path (which starts with `/`) or `@` and its abstract name.
pub const UNIX: u8 = b'u';

/// Bytes of an IPv4 operand.
pub const IPV4_BYTES: usize = 8;
/// Bytes of an IPv6 operand.
pub const IPV6_BYTES: usize = 20;

/// Protocols that a rule can name, with their IP protocol number (`include/uapi/linux/in.h`). MPTCP (262) counts as TCP;
/// any other number above 255 is the operand byte [`OTHER_PROTOCOL`].
pub const PROTOCOLS: &[(&str, u8)] =
    &[("tcp", 6), ("udp", 17), ("udplite", 136), ("sctp", 132), ("icmp", 1), ("icmp6", 58)];

/// The operand byte of a protocol whose number does not fit into a byte and that is not MPTCP.
pub const OTHER_PROTOCOL: u8 = 255;

/// The operand byte for the protocol number of a socket.
#[inline(always)]
#[must_use]
pub const fn protocol_byte(protocol: u32) -> u8 {
    match protocol {
        262 => 6,
        0..=254 => protocol as u8,
        _ => OTHER_PROTOCOL,
    }
}

/// Socket kinds that differ from their address family: raw and ping sockets, and route netlink. All other kinds are the
/// number of the family (`include/linux/socket.h`), which is below 128.
pub mod socket_kind {
    /// `AF_INET`, raw or ping.
    pub const INET_RAW: u8 = 128;
    /// `AF_INET6`, raw or ping.
    pub const INET6_RAW: u8 = 129;
    /// `AF_NETLINK`, protocol `NETLINK_ROUTE`.
    pub const NETLINK_ROUTE: u8 = 130;
    /// Any family above 127: no rule can name it.
    pub const OTHER: u8 = 255;
}

/// The words of `sockets` in a policy with their kinds: the kernel's own lower-case names (`AF_*`), and those of
/// [`socket_kind`].
pub const SOCKET_KINDS: &[(&str, u8)] = &[
    ("unix", 1),
    ("inet", 2),
    ("ax25", 3),
    ("ipx", 4),
    ("appletalk", 5),
    ("netrom", 6),
    ("bridge", 7),
    ("atmpvc", 8),
    ("x25", 9),
    ("inet6", 10),
    ("rose", 11),
    ("decnet", 12),
    ("netbeui", 13),
    ("security", 14),
    ("key", 15),
    ("netlink", 16),
    ("packet", 17),
    ("ash", 18),
    ("econet", 19),
    ("atmsvc", 20),
    ("rds", 21),
    ("sna", 22),
    ("irda", 23),
    ("pppox", 24),
    ("wanpipe", 25),
    ("llc", 26),
    ("ib", 27),
    ("mpls", 28),
    ("can", 29),
    ("tipc", 30),
    ("bluetooth", 31),
    ("iucv", 32),
    ("rxrpc", 33),
    ("isdn", 34),
    ("phonet", 35),
    ("ieee802154", 36),
    ("caif", 37),
    ("alg", 38),
    ("nfc", 39),
    ("vsock", 40),
    ("kcm", 41),
    ("qipcrtr", 42),
    ("smc", 43),
    ("xdp", 44),
    ("mctp", 45),
    ("inet-raw", socket_kind::INET_RAW),
    ("inet6-raw", socket_kind::INET6_RAW),
    ("netlink-route", socket_kind::NETLINK_ROUTE),
];

/// The kind of a socket by the arguments of `socket(2)`.
#[inline(always)]
#[must_use]
pub const fn socket_kind(family: u32, socket_type: u32, protocol: u32) -> u8 {
    const SOCK_STREAM: u32 = 1;
    const SOCK_DGRAM: u32 = 2;
    let socket_type = socket_type & 0xf;
    match family {
        2 | 10 => {
            // TCP, MPTCP, UDP and UDP-Lite are judged by address wherever they connect and send. All else is raw, and so
            // are ping sockets, and the transports that have ways of their own to reach an address (SCTP, DCCP).
            let plain = match socket_type {
                SOCK_STREAM => matches!(protocol, 0 | 6 | 262),
                SOCK_DGRAM => matches!(protocol, 0 | 17 | 136),
                _ => false,
            };
            match (family, plain) {
                (_, true) => family as u8,
                (2, false) => socket_kind::INET_RAW,
                _ => socket_kind::INET6_RAW,
            }
        }
        16 if protocol == 0 => socket_kind::NETLINK_ROUTE,
        0..=127 => family as u8,
        _ => socket_kind::OTHER,
    }
}

/// Capabilities by number (`include/uapi/linux/capability.h`).
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The operands of files that have no name, matched by these words only.
pub mod anonymous {
    /// A memfd, or System V or other kernel-internal shared memory.
    pub const MEMFD: &str = "anon:memfd";
    /// A file whose name is gone, or that never had one (O_TMPFILE).
    pub const DELETED: &str = "anon:deleted";
    /// A pipe without a name.
    pub const PIPE: &str = "anon:pipe";
    /// A socket.
    pub const SOCKET: &str = "anon:socket";
    /// Anything else without a name: anonymous memory, eventfd, epoll and the like.
    pub const OTHER: &str = "anon:other";
    /// All of them.
    pub const ALL: &[&str] = &[MEMFD, DELETED, PIPE, SOCKET, OTHER];
}
