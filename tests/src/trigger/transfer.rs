//! Steps that move bytes over a socket that is held.

use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use super::sys::{Done, check, descriptor, pipe};
use super::unix;
use super::words::Words;

// `include/uapi/linux/sctp.h`
const SCTP_SOCKOPT_BINDX_ADD: i32 = 100;
const SCTP_SOCKOPT_CONNECTX: i32 = 110;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("unix-hold", |held, words| {
        let kind = if words.text(3) == "packets" { libc::SOCK_SEQPACKET } else { libc::SOCK_STREAM };
        let socket = unix::socket(kind)?;
        unix::connect_to(&socket, &words.path(2).into_bytes())?;
        held.keep(words, 1, socket);
        Ok(0)
    }),
    ("family-hold", |held, words| {
        let (family, kind, protocol) = (words.number(2) as i32, words.number(3) as i32, words.number(4) as i32);
        // SAFETY: takes numbers.
        let made = descriptor(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
        held.keep(words, 1, made);
        Ok(0)
    }),
    // Addresses that options of an SCTP socket connect and bind to: PORT ADDRESS...
    ("sctp-connect", |_, words| sctp(words, SCTP_SOCKOPT_CONNECTX)),
    ("sctp-bind", |_, words| sctp(words, SCTP_SOCKOPT_BINDX_ADD)),
    // One byte that stays there.
    ("recv-held", |held, words| {
        let (socket, flags) = (held.get(words, 1)?, libc::MSG_DONTWAIT | libc::MSG_PEEK);
        let mut byte = [0_u8; 1];
        // SAFETY: the buffer is as long as is said.
        check(unsafe { libc::recv(socket, byte.as_mut_ptr().cast(), 1, flags) } as i64)
    }),
    // An Ethernet frame to nobody over the loopback device.
    ("send-frame-held", |held, words| {
        const LOOPBACK_INDEX: i32 = 1;
        // SAFETY: numbers, for which 0 is a value.
        let mut name: libc::sockaddr_ll = unsafe { zeroed() };
        name.sll_family = libc::AF_PACKET as u16;
        name.sll_ifindex = LOOPBACK_INDEX;
        name.sll_halen = 6;
        let (socket, length) = (held.get(words, 1)?, size_of::<libc::sockaddr_ll>() as u32);
        // SAFETY: the bytes and the address are as long as is said.
        check(
            unsafe { libc::sendto(socket, [0_u8; 60].as_ptr().cast(), 60, 0, (&raw const name).cast(), length) } as i64
        )
        .map(|_| 0)
    }),
    ("splice-from-held", |held, words| {
        let (reader, writer) = pipe()?;
        let socket = held.get(words, 1)?;
        let flags = libc::SPLICE_F_NONBLOCK;
        // SAFETY: no offsets are given.
        let moved = check(unsafe { libc::splice(socket, null_mut(), writer.as_raw_fd(), null_mut(), 1, flags) } as i64);
        drop(reader);
        moved
    }),
    ("splice-to-held", |held, words| {
        let (reader, writer) = pipe()?;
        // SAFETY: one byte.
        check(unsafe { libc::write(writer.as_raw_fd(), b"x".as_ptr().cast(), 1) } as i64)?;
        let socket = held.get(words, 1)?;
        // SAFETY: no offsets are given.
        check(unsafe { libc::splice(reader.as_raw_fd(), null_mut(), socket, null_mut(), 1, 0) } as i64)
    }),
    ("sendfile-held", |held, words| {
        let (socket, file) = (held.get(words, 1)?, held.get(words, 2)?);
        let mut offset = 0;
        // SAFETY: the offset lives during the call.
        check(unsafe { libc::sendfile(socket, file, &raw mut offset, 1) } as i64)
    }),
];

/// Gives the addresses of the words to an option of a socket.
fn sctp(words: &Words, option: i32) -> Done {
    // SAFETY: takes numbers.
    let made = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        libc::socket(libc::AF_INET, kind, libc::IPPROTO_SCTP)
    };
    let socket = descriptor(made)?;
    let mut list = Vec::new();
    for address in words.0.iter().skip(2) {
        let address: Ipv4Addr = String::from_utf8_lossy(address).parse().map_err(|_| libc::EINVAL)?;
        list.extend((libc::AF_INET as u16).to_ne_bytes());
        list.extend((words.number(1) as u16).to_be_bytes());
        list.extend(address.octets());
        list.extend([0; 8]);
    }
    let (at, length) = (list.as_ptr().cast(), list.len() as u32);
    // SAFETY: the list is as long as is said.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_SCTP, option, at, length) }).map(|_| 0)
}
