//! Steps on internet sockets, and on sockets of all families: all but what is sent (`send.rs`).

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::{Done, check, descriptor};

const IPPROTO_MPTCP: i32 = 262;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const IPV6_FLOWLABEL_MGR: i32 = 32;
const IPV6_HDRINCL: i32 = 36;
/// A routing header, as an option and as a control message.
pub const IPV6_RTHDR: i32 = 57;
/// Loose source route over one address (RFC 791): type 131, length 7, pointer 4.
pub const LOOSE_ROUTE: [u8; 7] = [131, 7, 4, 127, 0, 0, 2];

/// The steps, by name. `PROTOCOL ADDRESS:PORT` follows most.
pub const STEPS: &[super::Row] = &[
    ("socket", |_, words| socket(words.number(1) as i32, words.number(2) as i32, words.number(3) as i32).map(|_| 0)),
    ("socket-hold", |held, words| {
        let made = of_protocol(&words.text(2), words.text(3) == "6")?;
        held.keep(words, 1, made);
        Ok(0)
    }),
    ("connect", |_, words| connect(towards(&words.text(1), &words.text(2))?.as_raw_fd(), &words.text(2))),
    // A loose source route for a socket that is held.
    ("route-held", |held, words| {
        let (socket, at) = (held.get(words, 1)?, LOOSE_ROUTE.as_ptr().cast());
        // SAFETY: the option is as long as is said.
        check(unsafe { libc::setsockopt(socket, libc::SOL_IP, libc::IP_OPTIONS, at, LOOSE_ROUTE.len() as u32) })
    }),
    ("connect-held", |held, words| connect(held.get(words, 1)?, &words.text(2))),
    ("connect-unspec-held", |held, words| {
        // SAFETY: all zeros is AF_UNSPEC without an address.
        let name: libc::sockaddr_in = unsafe { zeroed() };
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::connect(held.get(words, 1)?, (&raw const name).cast(), 16) })
    }),
    ("connect-fast-open", |_, words| {
        let socket = towards("tcp", &words.text(1))?;
        set(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT)?;
        connect(socket.as_raw_fd(), &words.text(1))?;
        // SAFETY: one byte.
        check(unsafe { libc::send(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } as i64).map(|_| 0)
    }),
    ("bind", |_, words| bound(&words.text(1), &words.text(2)).map(|_| 0)),
    ("listen", |_, words| listen(&bound(&words.text(1), &words.text(2))?)),
    ("listen-held", |held, words| {
        let socket = bound("tcp", &words.text(2))?;
        listen(&socket)?;
        held.keep(words, 1, socket);
        Ok(0)
    }),
    ("accept-held", |held, words| {
        let listener = held.get(words, 1)?;
        // SAFETY: the peer's address is not asked for.
        let accepted =
            unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
        held.keep(words, 2, descriptor(accepted)?);
        Ok(0)
    }),
    ("set-ip-options", |_, words| {
        set_bytes(&of_protocol(&words.text(1), false)?, libc::SOL_IP, libc::IP_OPTIONS, &LOOSE_ROUTE)
    }),
    // A key of TCP-AO; the kernel has no such algorithm, or not even the option.
    ("set-tcp-key", |_, _| {
        const TCP_AO_ADD_KEY: i32 = 38;
        set_bytes(&of_protocol("tcp", false)?, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &[0; 16])
    }),
    ("set-routing-header", |_, words| {
        set_bytes(&of_protocol(&words.text(1), true)?, libc::SOL_IPV6, IPV6_RTHDR, &segments())
    }),
    ("set-own-header", |_, words| {
        let v6 = words.text(1) == "6";
        let socket = of_protocol(if v6 { "raw6" } else { "raw4" }, v6)?;
        let (level, option) = if v6 { (libc::SOL_IPV6, IPV6_HDRINCL) } else { (libc::SOL_IP, libc::IP_HDRINCL) };
        set(&socket, level, option)
    }),
    ("set-own-header-raw", |_, _| set(&of_protocol("raw6", true)?, libc::SOL_RAW, IPV6_HDRINCL)),
    // What has arrived, by an option (struct tcp_zerocopy_receive).
    ("recv-by-option", |held, words| {
        const TCP_ZEROCOPY_RECEIVE: i32 = 35;
        let mut bytes = [0_u8; 4096];
        let mut request = [0_u64; 7];
        request[3] = bytes.as_mut_ptr() as u64;
        request[4] = bytes.len() as u64;
        let mut length = size_of_val(&request) as u32;
        // SAFETY: the request is as long as is said, and so is the buffer that it names.
        check(unsafe {
            let at = request.as_mut_ptr().cast();
            libc::getsockopt(held.get(words, 1)?, libc::SOL_TCP, TCP_ZEROCOPY_RECEIVE, at, &raw mut length)
        })?;
        Ok(bytes.iter().take_while(|byte| **byte != 0).count() as i64)
    }),
    ("set-flow-label", |_, _| {
        // struct in6_flowlabel_req: destination, label, action (get), share (any), flags (create), times, padding.
        let mut request = [0_u8; 32];
        request[15] = 1;
        request[21] = 255;
        request[22] = 1;
        set_bytes(&of_protocol("udp", true)?, libc::SOL_IPV6, IPV6_FLOWLABEL_MGR, &request)
    }),
    // To a name of another family.
    ("connect-foreign", |_, words| {
        let (socket, family) = (of_protocol(&words.text(1), false)?, [libc::AF_UNIX as u16; 8]);
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::connect(socket.as_raw_fd(), family.as_ptr().cast(), 16) })
    }),
    ("listen-unbound", |_, words| listen(&of_protocol("tcp", words.text(1) == "6")?)),
];

/// Whether an address is one of IPv6.
pub fn is_v6(address: &str) -> bool {
    address.starts_with('[')
}

fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, i32> {
    // SAFETY: takes numbers.
    descriptor(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// A socket of the protocol that a word names.
pub fn of_protocol(protocol: &str, v6: bool) -> Result<OwnedFd, i32> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    match protocol {
        "udp" => socket(family, libc::SOCK_DGRAM, 0),
        "udplite" => socket(family, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        "mptcp" => socket(family, libc::SOCK_STREAM, IPPROTO_MPTCP),
        "ping" => socket(family, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        "raw4" => socket(libc::AF_INET, libc::SOCK_RAW, 253),
        "raw6" => socket(libc::AF_INET6, libc::SOCK_RAW, 253),
        "raw" => socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW),
        _ => socket(family, libc::SOCK_STREAM, 0),
    }
}

/// A socket of this protocol, and of the family of an address.
pub fn towards(protocol: &str, address: &str) -> Result<OwnedFd, i32> {
    of_protocol(protocol, is_v6(address))
}

/// A socket address in the room of the longest, and its length.
pub fn address(text: &str) -> (libc::sockaddr_in6, u32) {
    let parsed: SocketAddr = text.parse().unwrap_or(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)));
    // SAFETY: numbers, for which 0 is a value.
    let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
    name.sin6_port = parsed.port().to_be();
    match parsed.ip() {
        IpAddr::V4(ip) => {
            name.sin6_family = libc::AF_INET as u16;
            // The IPv4 address stands where IPv6 has the flow.
            name.sin6_flowinfo = u32::from_ne_bytes(ip.octets());
            (name, size_of::<libc::sockaddr_in>() as u32)
        }
        IpAddr::V6(ip) => {
            name.sin6_family = libc::AF_INET6 as u16;
            name.sin6_addr.s6_addr = ip.octets();
            (name, size_of::<libc::sockaddr_in6>() as u32)
        }
    }
}

fn set(socket: &OwnedFd, level: i32, option: i32) -> Done {
    set_bytes(socket, level, option, &1_i32.to_ne_bytes())
}

/// Sets an option to this value.
pub fn set_bytes(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> Done {
    let (at, length) = (value.as_ptr().cast(), value.len() as u32);
    // SAFETY: the value is as long as is said.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, at, length) })
}

fn connect(socket: i32, to: &str) -> Done {
    let (name, length) = address(to);
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::connect(socket, (&raw const name).cast(), length) })
}

/// Binds a socket to an address.
pub fn bind(socket: &OwnedFd, at: &str) -> Done {
    let (name, length) = address(at);
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })
}

fn bound(protocol: &str, at: &str) -> Result<OwnedFd, i32> {
    let socket = towards(protocol, at)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    bind(&socket, at)?;
    Ok(socket)
}

/// A segment routing header over ::1 and ::2 (RFC 8754): next header, length, type 4, segments left, last entry.
pub fn segments() -> Vec<u8> {
    let mut header = vec![0_u8, 4, 4, 1, 1, 0, 0, 0];
    for last in [2, 1] {
        header.extend([0; 15]);
        header.push(last);
    }
    header
}

fn listen(socket: &OwnedFd) -> Done {
    // SAFETY: takes numbers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 1) })
}
