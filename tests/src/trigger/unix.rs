//! Steps on unix sockets. A name is a path, or `@` and an abstract name.

use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};

use super::power::in_child;
use super::sys::{Done, check, descriptor};
use super::words::Words;

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("unix-connect", |_, words| connect(&socket(libc::SOCK_STREAM)?, words)),
    // `unix-connect-in ROOT PATH`: with another root, in a child.
    ("unix-connect-in", |_, words| {
        in_child(|| {
            // SAFETY: the path ends with NUL.
            if unsafe { libc::chroot(words.path(1).as_ptr()) } < 0 {
                return -1;
            }
            let connected = socket(libc::SOCK_STREAM).and_then(|socket| connect_to(&socket, words.path(2).as_bytes()));
            connected.map_or(-1, i64::from)
        })
    }),
    ("unix-connect-packets", |_, words| connect(&socket(libc::SOCK_SEQPACKET)?, words)),
    ("unix-connect-datagrams", |_, words| connect(&socket(libc::SOCK_DGRAM)?, words)),
    ("unix-send", |_, words| {
        let (socket, (name, length)) = (socket(libc::SOCK_DGRAM)?, name(words));
        let bytes = b"x".as_ptr().cast();
        // SAFETY: one byte; the address is as long as is said.
        check(unsafe { libc::sendto(socket.as_raw_fd(), bytes, 1, 0, (&raw const name).cast(), length) } as i64)
            .map(|_| 0)
    }),
    ("unix-bind", |_, words| bind(&socket(libc::SOCK_STREAM)?, words)),
    // Under a name that the kernel chooses.
    ("unix-bind-any", |_, _| {
        let (socket, family) = (socket(libc::SOCK_DGRAM)?, (libc::AF_UNIX as u16).to_ne_bytes());
        // SAFETY: the address is as long as is said.
        check(unsafe { libc::bind(socket.as_raw_fd(), family.as_ptr().cast(), 2) })
    }),
    ("unix-listen", |_, words| {
        let socket = socket(libc::SOCK_STREAM)?;
        bind(&socket, words)?;
        // SAFETY: takes numbers.
        check(unsafe { libc::listen(socket.as_raw_fd(), 1) })
    }),
    ("unix-listener-hold", |held, words| {
        let (listener, (name, length)) = (socket(libc::SOCK_STREAM)?, named(&words.path(2).into_bytes()));
        // SAFETY: the address is as long as is said; the rest are numbers.
        unsafe {
            check(libc::bind(listener.as_raw_fd(), (&raw const name).cast(), length))?;
            check(libc::listen(listener.as_raw_fd(), 1))?;
        }
        held.keep(words, 1, listener);
        Ok(0)
    }),
    ("unix-pair", |_, words| {
        let kind = if words.text(1) == "datagrams" { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
        let mut pair = [0_i32; 2];
        // SAFETY: room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) })?;
        let (one, _other) = (descriptor(pair[0])?, descriptor(pair[1])?);
        // SAFETY: one byte.
        check(unsafe { libc::send(one.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) } as i64).map(|_| 0)
    }),
    // A descriptor that is held goes through a socketpair; the errno of a denial is not told by recvmsg(2), which gives
    // the message without the descriptor: ENOMSG here.
    ("pass", |held, words| {
        let mut pair = [0_i32; 2];
        // SAFETY: room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) })?;
        let (one, other) = (descriptor(pair[0])?, descriptor(pair[1])?);
        let sent = OneDescriptor::new(held.get(words, 1)?);
        sent.exchange(|message| {
            // SAFETY: everything that the message points to lives during the call.
            check(unsafe { libc::sendmsg(one.as_raw_fd(), message, 0) } as i64)
        })?;
        let mut received = OneDescriptor::new(-1);
        received.receive(&other)
    }),
];

/// A control message with one descriptor (`struct cmsghdr` and the number).
#[repr(C)]
struct OneDescriptor {
    length: usize,
    level: i32,
    kind: i32,
    descriptor: i32,
    padding: i32,
}

impl OneDescriptor {
    const BYTES: usize = 20;

    fn new(descriptor: i32) -> Self {
        Self { length: Self::BYTES, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, descriptor, padding: 0 }
    }

    /// Calls with a message of one byte and this.
    fn exchange(&self, call: impl FnOnce(&mut libc::msghdr) -> Done) -> Done {
        let mut byte = *b"x";
        let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        // SAFETY: numbers and pointers, for which 0 is a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = (&raw const *self).cast_mut().cast();
        message.msg_controllen = size_of::<Self>();
        call(&mut message)
    }

    fn receive(&mut self, socket: &OwnedFd) -> Done {
        let mut length = 0;
        self.exchange(|message| {
            // SAFETY: everything that the message points to lives during the call.
            let got = check(unsafe { libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) } as i64);
            length = message.msg_controllen;
            got
        })?;
        // SAFETY: the kernel has written the message, or nothing.
        let number = unsafe { std::ptr::read_volatile(&raw const self.descriptor) };
        if length < Self::BYTES || number < 0 {
            return Err(libc::ENOMSG);
        }
        descriptor(number).map(|_| 0)
    }
}

/// A socket of this type.
pub fn socket(kind: i32) -> Result<OwnedFd, i32> {
    // SAFETY: takes numbers.
    descriptor(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) })
}

fn name(words: &Words) -> (libc::sockaddr_un, u32) {
    named(&words.path(1).into_bytes())
}

fn named(text: &[u8]) -> (libc::sockaddr_un, u32) {
    // SAFETY: numbers, for which 0 is a value.
    let mut name: libc::sockaddr_un = unsafe { zeroed() };
    name.sun_family = libc::AF_UNIX as u16;
    for (place, byte) in name.sun_path.iter_mut().zip(text) {
        *place = *byte as libc::c_char;
    }
    let is_abstract = text.first() == Some(&b'@');
    if is_abstract {
        name.sun_path[0] = 0;
    }
    // A path has its NUL with it; an abstract name ends with the address.
    (name, 2 + text.len() as u32 + u32::from(!is_abstract))
}

fn connect(socket: &OwnedFd, words: &Words) -> Done {
    connect_to(socket, &words.path(1).into_bytes())
}

/// Connects to a path, or to an abstract name after `@`.
pub fn connect_to(socket: &OwnedFd, name: &[u8]) -> Done {
    let (name, length) = named(name);
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length) })
}

fn bind(socket: &OwnedFd, words: &Words) -> Done {
    let (name, length) = name(words);
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })
}
