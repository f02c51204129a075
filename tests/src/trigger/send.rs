//! Steps that send over internet sockets, and the messages that they send.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use super::network::{IPV6_RTHDR, LOOSE_ROUTE, address, bind, is_v6, of_protocol, segments, set_bytes, towards};
use super::sys::{Done, check};
use super::words::Words;

/// The steps, by name. `PROTOCOL ADDRESS:PORT` follows most.
pub const STEPS: &[super::Row] = &[
    ("sendto", |_, words| eight_bytes(words, 0)),
    ("send-fast-open", |_, words| eight_bytes(words, libc::MSG_FASTOPEN)),
    ("sendto-short", |_, words| {
        let socket = towards(&words.text(1), &words.text(2))?;
        let (name, _) = address(&words.text(2));
        send_to(socket.as_raw_fd(), b"x", 0, (name, 6))
    }),
    ("sendmsg", |_, words| {
        let (socket, mut byte) = (towards(&words.text(1), &words.text(2))?, OneByte::to(&words.text(2)));
        send_message(&socket, byte.message())
    }),
    ("sendmmsg", |_, words| {
        let (socket, mut byte) = (towards(&words.text(1), &words.text(2))?, OneByte::to(&words.text(2)));
        send_messages(&socket, [byte.message()]).map(|_| 0)
    }),
    ("send-held", |held, words| {
        // SAFETY: one byte.
        check(unsafe { libc::send(held.get(words, 1)?, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } as i64)
    }),
    // The beginning of a datagram.
    ("sendto-held-more", |held, words| send_to(held.get(words, 1)?, b"x", libc::MSG_MORE, address(&words.text(2)))),
    ("sendto-held", |held, words| send_to(held.get(words, 1)?, b"x", 0, address(&words.text(2)))),
    ("sendto-unspec", |_, words| {
        let socket = of_protocol(&words.text(1), false)?;
        let (mut name, length) = address(&words.text(2));
        name.sin6_family = libc::AF_UNSPEC as u16;
        send_to(socket.as_raw_fd(), b"x", 0, (name, length))
    }),
    ("send-to-nobody", |_, words| {
        let socket = of_protocol("udp", words.text(1) == "6")?;
        // SAFETY: one byte.
        check(unsafe { libc::send(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) } as i64).map(|_| 0)
    }),
    // Over UDP to the first address, from a socket that is bound to the second one, or that has a device of its own.
    ("sendto-from", |_, words| {
        let socket = towards("udp", &words.text(1))?;
        bind(&socket, &words.text(2))?;
        send_to(socket.as_raw_fd(), b"x", 0, address(&words.text(1))).map(|_| 0)
    }),
    ("sendto-by-device", |_, words| {
        let socket = of_protocol("udp", false)?;
        set_bytes(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0")?;
        send_to(socket.as_raw_fd(), b"x", 0, address(&words.text(1))).map(|_| 0)
    }),
    // The same by a message that says itself where it is from.
    ("sendto-by-information", |_, words| {
        let (socket, mut byte) = (of_protocol("udp", false)?, OneByte::to(&words.text(1)));
        let mut control = from_second_address();
        send_message(&socket, with_control(byte.message(), &mut control))
    }),
    // With a control message that sets a route.
    ("send-routed", |_, words| {
        let (socket, mut byte) = (towards(&words.text(1), &words.text(2))?, OneByte::to(&words.text(2)));
        let mut control = route(&words.text(2), &segments());
        send_message(&socket, with_control(byte.message(), &mut control))
    }),
    ("send-second-routed", |_, words| second_routed(words)),
    // Two messages to one address by one call, of which the second one says that it is from 127.0.0.2.
    ("send-second-by-information", |_, words| {
        let (socket, mut byte) = (of_protocol("udp", false)?, OneByte::to(&words.text(1)));
        let mut control = from_second_address();
        let plain = byte.message();
        both(send_messages(&socket, [plain, with_control(plain, &mut control)])?)
    }),
];

fn eight_bytes(words: &Words, flags: i32) -> Done {
    let socket = towards(&words.text(1), &words.text(2))?;
    let flags = flags | libc::MSG_NOSIGNAL;
    send_to(socket.as_raw_fd(), b"xxxxxxxx", flags, address(&words.text(2))).map(|_| 0)
}

/// Sends by `sendto`, with so much of the address as is said.
fn send_to(socket: i32, bytes: &[u8], flags: i32, (name, length): (libc::sockaddr_in6, u32)) -> Done {
    let (at, count) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: the bytes are as long as is said, and the address at least.
    check(unsafe { libc::sendto(socket, at, count, flags, (&raw const name).cast(), length) } as i64)
}

/// One byte to an address: what a message points to.
pub struct OneByte {
    name: libc::sockaddr_in6,
    length: u32,
    byte: [u8; 1],
    piece: libc::iovec,
}

impl OneByte {
    /// One that goes to this address.
    pub fn to(text: &str) -> Self {
        let (name, length) = address(text);
        Self { name, length, byte: *b"x", piece: libc::iovec { iov_base: null_mut(), iov_len: 1 } }
    }

    /// The message, which is used only while this is there.
    pub fn message(&mut self) -> libc::msghdr {
        self.piece.iov_base = self.byte.as_mut_ptr().cast();
        // SAFETY: numbers and pointers, for which 0 is a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut self.name).cast();
        message.msg_namelen = self.length;
        message.msg_iov = &raw mut self.piece;
        message.msg_iovlen = 1;
        message
    }
}

/// The same message with this control message, which it points to as well.
fn with_control(mut message: libc::msghdr, control: &mut [u8]) -> libc::msghdr {
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len();
    message
}

fn send_message(socket: &OwnedFd, message: libc::msghdr) -> Done {
    // SAFETY: everything that the message points to lives in the caller.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } as i64).map(|_| 0)
}

/// Sends messages by one call: how many were sent.
fn send_messages<const COUNT: usize>(socket: &OwnedFd, messages: [libc::msghdr; COUNT]) -> Done {
    let mut messages = messages.map(|msg_hdr| libc::mmsghdr { msg_hdr, msg_len: 0 });
    // SAFETY: so many messages as are said; everything that they point to lives in the caller.
    check(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), COUNT as u32, 0) })
}

/// Sends two messages to one address by one call, the second with a control message that sets a route. ECANCELED where
/// only the first was sent: the kernel does not tell why.
fn second_routed(words: &Words) -> Done {
    let (socket, mut byte) = (towards(&words.text(1), &words.text(2))?, OneByte::to(&words.text(2)));
    // For mobile hosts (RFC 6275): next header, length, type 2, one segment left, ::1.
    let header = [[0_u8, 2, 2, 1, 0, 0, 0, 0], [0; 8], [0, 0, 0, 0, 0, 0, 0, 1]].concat();
    let mut control = route(&words.text(2), &header);
    let plain = byte.message();
    both(send_messages(&socket, [plain, with_control(plain, &mut control)])?)
}

/// Whether both messages were sent.
fn both(sent: i64) -> Done {
    if sent == 2 { Ok(0) } else { Err(libc::ECANCELED) }
}

/// A control message by which a message is from 127.0.0.2.
fn from_second_address() -> Vec<u8> {
    // struct in_pktinfo: index of the device, the address to send from, the address in the header.
    control(libc::SOL_IP, libc::IP_PKTINFO, &[0, 0, 0, 0, 127, 0, 0, 2, 0, 0, 0, 0])
}

/// A control message that sets a route to an address: by this header where it is one of IPv6.
fn route(to: &str, header: &[u8]) -> Vec<u8> {
    if is_v6(to) {
        control(libc::SOL_IPV6, IPV6_RTHDR, header)
    } else {
        control(libc::SOL_IP, libc::IP_RETOPTS, &LOOSE_ROUTE)
    }
}

/// A control message: `struct cmsghdr` and what follows it.
fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut control = (16 + data.len()).to_ne_bytes().to_vec();
    control.extend(level.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(data.iter().copied()));
    control.resize(control.len().next_multiple_of(8), 0);
    control
}
