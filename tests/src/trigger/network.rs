//! Steps on internet sockets, and on sockets of all families.

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::{Done, check, descriptor};
use super::words::Words;

const IPPROTO_MPTCP: i32 = 262;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const IPV6_FLOWLABEL_MGR: i32 = 32;
const IPV6_HDRINCL: i32 = 36;
const IPV6_RTHDR: i32 = 57;

/// The steps, by name. `PROTOCOL ADDRESS:PORT` follows most.
pub const STEPS: &[super::Row] = &[
    ("socket", |_, words| socket(words.number(1) as i32, words.number(2) as i32, words.number(3) as i32).map(|_| 0)),
    ("socket-hold", |held, words| {
        let made = of_protocol(&words.text(2), words.text(3) == "6")?;
        held.keep(words, 1, made);
        Ok(0)
    }),
    ("connect", |_, words| connect(&of_protocol(&words.text(1), is_v6(words, 2))?, words, 2)),
    ("connect-held", |held, words| {
        let (name, length) = address(&words.text(2));
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::connect(held.get(words, 1)?, (&raw const name).cast(), length) })
    }),
    ("connect-unspec-held", |held, words| {
        // SAFETY: all zeros is AF_UNSPEC without an address.
        let name: libc::sockaddr_in = unsafe { zeroed() };
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::connect(held.get(words, 1)?, (&raw const name).cast(), 16) })
    }),
    ("connect-fast-open", |_, words| {
        let socket = of_protocol("tcp", is_v6(words, 1))?;
        set(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT)?;
        connect(&socket, words, 1)?;
        // SAFETY: one byte.
        check(unsafe { libc::send(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } as i64).map(|_| 0)
    }),
    ("sendto", |_, words| sendto(words, 0)),
    ("send-fast-open", |_, words| sendto(words, libc::MSG_FASTOPEN)),
    ("sendto-short", |_, words| {
        let socket = of_protocol(&words.text(1), is_v6(words, 2))?;
        let (name, _) = address(&words.text(2));
        // SAFETY: the address is longer than what is said.
        check(
            unsafe { libc::sendto(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), 6) } as i64
        )
    }),
    ("sendmsg", |_, words| message(words, false)),
    ("sendmmsg", |_, words| message(words, true)),
    ("send-held", |held, words| {
        // SAFETY: one byte.
        check(unsafe { libc::send(held.get(words, 1)?, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } as i64)
    }),
    ("sendto-held", |held, words| {
        let (name, length) = address(&words.text(2));
        let socket = held.get(words, 1)?;
        // SAFETY: one byte; the address is as long as is said.
        check(unsafe { libc::sendto(socket, b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), length) } as i64)
    }),
    ("sendto-unspec", |_, words| {
        let socket = of_protocol(&words.text(1), false)?;
        let (mut name, length) = address(&words.text(2));
        name.sin6_family = libc::AF_UNSPEC as u16;
        // SAFETY: one byte; the address is as long as is said.
        check(unsafe { libc::sendto(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), length) }
            as i64)
    }),
    ("bind", |_, words| bound(words).map(|_| 0)),
    ("listen", |_, words| listen(&bound(words)?)),
    ("listen-held", |held, words| {
        let socket = of_protocol("tcp", is_v6(words, 2))?;
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        let (name, length) = address(&words.text(2));
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })?;
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
        // Loose source route over one address (RFC 791): type 131, length 7, pointer 4.
        let mut options = vec![131_u8, 7, 4];
        options.extend([127, 0, 0, 2]);
        let socket = of_protocol(&words.text(1), false)?;
        // SAFETY: the options are as long as is said.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, libc::IP_OPTIONS, options.as_ptr().cast(), 7)
        })
    }),
    ("set-routing-header", |_, words| {
        let header = segments();
        let (option, length) = (IPV6_RTHDR, header.len() as u32);
        let socket = of_protocol(&words.text(1), true)?;
        // SAFETY: the header is as long as is said.
        check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_IPV6, option, header.as_ptr().cast(), length) })
    }),
    ("set-own-header", |_, words| {
        let v6 = words.text(1) == "6";
        let socket = of_protocol(if v6 { "raw6" } else { "raw4" }, v6)?;
        let (level, option) = if v6 { (libc::SOL_IPV6, IPV6_HDRINCL) } else { (libc::SOL_IP, libc::IP_HDRINCL) };
        set(&socket, level, option)
    }),
    ("set-own-header-raw", |_, _| set(&of_protocol("raw6", true)?, libc::SOL_RAW, IPV6_HDRINCL)),
    // To an address, over UDP, from another one: by `bind`, or by a message's own information (`by-message`).
    ("sendto-from", |_, words| {
        let v6 = is_v6(words, 1);
        let socket = of_protocol("udp", v6)?;
        let (name, length) = address(&words.text(2));
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })?;
        let (name, length) = address(&words.text(1));
        // SAFETY: one byte; the address is as long as is said.
        check(unsafe { libc::sendto(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), length) }
            as i64)
        .map(|_| 0)
    }),
    ("sendto-by-device", |_, words| {
        let socket = of_protocol("udp", false)?;
        // SAFETY: the name of the device is as long as is said.
        check(unsafe {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
            libc::setsockopt(socket.as_raw_fd(), level, option, c"lo".as_ptr().cast(), 3)
        })?;
        let (name, length) = address(&words.text(1));
        // SAFETY: one byte; the address is as long as is said.
        check(unsafe { libc::sendto(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), length) }
            as i64)
        .map(|_| 0)
    }),
    ("sendto-by-information", |_, words| {
        let socket = of_protocol("udp", false)?;
        let (mut name, length) = address(&words.text(1));
        // struct in_pktinfo: index of the device, the address to send from, the address in the header.
        let mut control = 28_usize.to_ne_bytes().to_vec();
        control.extend(libc::SOL_IP.to_ne_bytes().into_iter().chain(libc::IP_PKTINFO.to_ne_bytes()));
        control.extend([0, 0, 0, 0, 127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut byte = *b"x";
        let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        // SAFETY: numbers and pointers, for which 0 is a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = length;
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
        // SAFETY: everything that the message points to lives during the call.
        check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } as i64).map(|_| 0)
    }),
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
        let socket = of_protocol("udp", true)?;
        // SAFETY: the request is as long as is said.
        check(unsafe {
            let at = request.as_ptr().cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_IPV6, IPV6_FLOWLABEL_MGR, at, 32)
        })
    }),
    ("send-to-nobody", |_, words| {
        let socket = of_protocol("udp", words.text(1) == "6")?;
        // SAFETY: one byte.
        check(unsafe { libc::send(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) } as i64).map(|_| 0)
    }),
    // To a name of another family.
    ("connect-foreign", |_, words| {
        let (socket, family) = (of_protocol(&words.text(1), false)?, [libc::AF_UNIX as u16; 8]);
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::connect(socket.as_raw_fd(), family.as_ptr().cast(), 16) })
    }),
    ("send-routed", |_, words| routed(words)),
    ("send-second-routed", |_, words| second_routed(words)),
    ("listen-unbound", |_, words| listen(&of_protocol("tcp", words.text(1) == "6")?)),
];

fn is_v6(words: &Words, index: usize) -> bool {
    words.text(index).starts_with('[')
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
    let one = 1_i32;
    // SAFETY: a number of four bytes.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const one).cast(), 4) })
}

fn connect(socket: &OwnedFd, words: &Words, index: usize) -> Done {
    let (name, length) = address(&words.text(index));
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length) })
}

fn sendto(words: &Words, flags: i32) -> Done {
    let socket = of_protocol(&words.text(1), is_v6(words, 2))?;
    let (name, length) = address(&words.text(2));
    let (bytes, flags) = (b"xxxxxxxx".as_ptr().cast(), flags | libc::MSG_NOSIGNAL);
    // SAFETY: eight bytes; the address is as long as is said.
    check(unsafe { libc::sendto(socket.as_raw_fd(), bytes, 8, flags, (&raw const name).cast(), length) } as i64)
        .map(|_| 0)
}

fn message(words: &Words, many: bool) -> Done {
    let socket = of_protocol(&words.text(1), is_v6(words, 2))?;
    let (mut name, length) = address(&words.text(2));
    let mut byte = *b"x";
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut message: libc::mmsghdr = unsafe { zeroed() };
    message.msg_hdr.msg_name = (&raw mut name).cast();
    message.msg_hdr.msg_namelen = length;
    message.msg_hdr.msg_iov = &raw mut piece;
    message.msg_hdr.msg_iovlen = 1;
    // SAFETY: everything that the message points to lives during the call.
    check(unsafe {
        if many {
            i64::from(libc::sendmmsg(socket.as_raw_fd(), &raw mut message, 1, 0))
        } else {
            libc::sendmsg(socket.as_raw_fd(), &raw const message.msg_hdr, 0) as i64
        }
    })
    .map(|_| 0)
}

fn bound(words: &Words) -> Result<OwnedFd, i32> {
    let socket = of_protocol(&words.text(1), is_v6(words, 2))?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    let (name, length) = address(&words.text(2));
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })?;
    Ok(socket)
}

/// A segment routing header over ::1 and ::2 (RFC 8754): next header, length, type 4, segments left, last entry.
fn segments() -> Vec<u8> {
    let mut header = vec![0_u8, 4, 4, 1, 1, 0, 0, 0];
    for last in [2, 1] {
        header.extend([0; 15]);
        header.push(last);
    }
    header
}

/// Sends two messages to one address by one call, the second with a control message that sets a route. ECANCELED where
/// only the first was sent: the kernel does not tell why.
fn second_routed(words: &Words) -> Done {
    let v6 = is_v6(words, 2);
    let socket = of_protocol(&words.text(1), v6)?;
    let (mut name, length) = address(&words.text(2));
    // For mobile hosts (RFC 6275): next header, length, type 2, one segment left, ::1.
    let header = [[0_u8, 2, 2, 1, 0, 0, 0, 0], [0; 8], [0, 0, 0, 0, 0, 0, 0, 1]].concat();
    let mut control = control(v6, if v6 { header } else { vec![131, 7, 4, 127, 0, 0, 2] });
    let mut byte = *b"x";
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut messages: [libc::mmsghdr; 2] = unsafe { zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_name = (&raw mut name).cast();
        message.msg_hdr.msg_namelen = length;
        message.msg_hdr.msg_iov = &raw mut piece;
        message.msg_hdr.msg_iovlen = 1;
    }
    messages[1].msg_hdr.msg_control = control.as_mut_ptr().cast();
    messages[1].msg_hdr.msg_controllen = control.len();
    // SAFETY: everything that the messages point to lives during the call.
    let sent = check(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 2, 0) } as i64)?;
    if sent == 2 { Ok(0) } else { Err(libc::ECANCELED) }
}

/// A control message that sets a route.
fn control(v6: bool, route: Vec<u8>) -> Vec<u8> {
    let (level, kind) = if v6 { (libc::SOL_IPV6, IPV6_RTHDR) } else { (libc::SOL_IP, libc::IP_RETOPTS) };
    let mut control = (16 + route.len()).to_ne_bytes().to_vec();
    control.extend(level.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(route));
    control.resize(control.len().next_multiple_of(8), 0);
    control
}

/// Sends with a control message that sets a route.
fn routed(words: &Words) -> Done {
    let v6 = is_v6(words, 2);
    let socket = of_protocol(&words.text(1), v6)?;
    let (mut name, length) = address(&words.text(2));
    let mut control = control(v6, if v6 { segments() } else { vec![131, 7, 4, 127, 0, 0, 2] });
    let mut byte = *b"x";
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: numbers and pointers, for which 0 is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len();
    // SAFETY: everything that the message points to lives during the call.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } as i64).map(|_| 0)
}

fn listen(socket: &OwnedFd) -> Done {
    // SAFETY: takes numbers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 1) })
}
