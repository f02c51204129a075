//! Whom a socket talks to, judged at each send and receive: it may have been made or connected by somebody else, or under
//! another policy.

use crate::kernel::{self, Kernel, address, load, offset, read};
use crate::operation::Operation;
use crate::path::operand;
use crate::scratch::reload;
use crate::socket::{AF_INET, AF_INET6, AF_UNIX, Endpoint};
use agent_monitor_common::class::{Class, Reason, network};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::name::{SOCKET, socket_kind};

// `include/linux/net.h`
/// A stream.
pub const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;

/// Whether a socket is the kernel's own, which network file systems use in the task of whoever reads and writes.
#[inline(always)]
pub fn is_kernels(sk: Kernel) -> bool {
    load::<u8>(sk, &kernel::SOCK_IS_KERNEL) & offset(&kernel::SOCK_IS_KERNEL_MASK) as u8 != 0
}

impl Operation<'_> {
    /// Judges the use of a socket of any family by whom it is connected to, or by the right to have it; `false` where
    /// there is nobody to judge.
    #[inline(always)]
    pub fn judge_peer(&mut self, sk: Kernel, family: u16, sends: bool) -> bool {
        if family == AF_INET || family == AF_INET6 {
            self.judge_internet_peer(sk, family, sends)
        } else if family == AF_UNIX {
            self.judge_unix_peer(sk)
        } else {
            self.judge_kind(sk, family);
            true
        }
    }

    /// The right to connect to the peer; or, for a stream that was accepted, the right to listen where it arrived.
    /// `false` where the socket is not connected; what a datagram socket sends to nobody counts as sent to the loopback
    /// address.
    #[inline(always)]
    pub fn judge_internet_peer(&mut self, sk: Kernel, family: u16, sends: bool) -> bool {
        let peer = Endpoint::peer(sk, family);
        if peer.unspecified() {
            if sends && load::<u16>(sk, &kernel::SOCK_TYPE) != SOCK_STREAM {
                // It fails, but gives the socket a port first, on every address.
                self.judge_endpoint(peer.destination(), network::SEND);
                return true;
            }
            return false;
        }
        self.judge_endpoint(peer, network::CONNECT);
        if self.is_allowed() || load::<u16>(sk, &kernel::SOCK_TYPE) != SOCK_STREAM {
            return true;
        }
        self.judge_endpoint(Endpoint::local(sk, family), network::LISTEN);
        if !self.is_allowed() {
            self.judge_endpoint(Endpoint::peer(sk, family), network::CONNECT);
        }
        true
    }

    /// The right to connect or to send to the peer of a stream or of packets in order; or the right to listen under the
    /// socket's own name. `false` where neither has a name, and for datagrams, which `unix_may_send` sees.
    #[inline(always)]
    fn judge_unix_peer(&mut self, sk: Kernel) -> bool {
        if load::<u16>(sk, &kernel::SOCK_TYPE) == SOCK_DGRAM {
            return false;
        }
        // VERIFIER: a `struct unix_sock` is more than the `struct sock` that it knows.
        let peer = read::<u64>(address(sk, &kernel::UNIX_SOCK_PEER)) as Kernel;
        if peer.is_null() {
            return false;
        }
        if !self.judge_unix(peer, network::CONNECT) {
            // Whoever connects seldom has a name; who accepted it has that of the socket which listened.
            return self.judge_unix(sk, network::LISTEN);
        }
        if self.is_allowed() {
            return true;
        }
        self.judge_unix(peer, network::SEND);
        if self.is_allowed() || self.judge_unix(sk, network::LISTEN) && self.is_allowed() {
            return true;
        }
        self.judge_unix(peer, network::CONNECT)
    }

    /// The right to make a socket of this kind, for families that have no addresses to judge.
    #[inline(always)]
    pub fn judge_kind(&mut self, sk: Kernel, family: u16) {
        let (kind, protocol): (u16, u16) = (load(sk, &kernel::SOCK_TYPE), load(sk, &kernel::SOCK_PROTOCOL));
        let kind = socket_kind(family.into(), kind.into(), protocol.into());
        let object = operand(self.scratch.object(), [SOCKET, kind]);
        let object = self.set_object(object);
        self.judge(Class::Network, object, OwnEntry::default(), network::CREATE);
    }

    #[inline(always)]
    fn is_allowed(&self) -> bool {
        reload(&self.scratch.header.reason) == Reason::AllowRule as u8
    }
}
