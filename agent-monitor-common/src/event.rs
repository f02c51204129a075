//! The event: what a kernel program tells about one operation. A fixed header, then the bytes of the object and, for a
//! rename or link, of the new object. Decoding takes any bytes and refuses what no program of ours writes.

use crate::class::{Builtin, CLASSES, Class, Fault, Reason, Verdict};
use crate::hook::HookId;

/// Version of this layout: the first bytes of each event.
pub const EVENT_VERSION: u16 = 1;

/// What an event tells of.
pub mod kind {
    /// An operation was judged.
    pub const OPERATION: u8 = 0;
    /// A cgroup was made below a bound one: `object` is its name, empty where that can't be read; `value` the id of the cgroup
    /// it was made in. Whoever reads this later may find no cgroup any more that tells the name.
    pub const CGROUP_MADE: u8 = 1;
    /// A bound cgroup is gone.
    pub const CGROUP_RELEASED: u8 = 2;
    /// A cgroup could not be bound; its tasks are denied everything while it exists.
    pub const BINDING_LOST: u8 = 3;
}

/// Header of each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventHeader {
    /// [`EVENT_VERSION`].
    pub version: u16,
    /// See [`kind`].
    pub kind: u8,
    /// A [`Class`].
    pub class: u8,
    /// A [`HookId`].
    pub hook: u16,
    /// A [`Verdict`].
    pub verdict: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// A [`Fault`] or [`Builtin`] where the reason is one; else 0.
    pub detail: u8,
    /// Kind of the policy's answer to faults and other bits; 0 now.
    pub flags: u8,
    /// The accesses asked for.
    pub access: u16,
    /// The errno that the caller got; 0 where the operation passed.
    pub errno: u16,
    /// Labels of the object, see [`crate::decide::Rights::labels`].
    pub labels: [u16; 3],
    /// Bytes of the object after the header.
    pub object_length: u16,
    /// Bytes of the new object after the object.
    pub new_object_length: u16,
    /// Number of the agent.
    pub agent: u32,
    /// Slot of the policy.
    pub slot: u32,
    /// Generation of the policy's image that decided.
    pub generation: u64,
    /// Counts events of all CPUs and both rings, in their order. There are gaps: of repeats that are only counted, and of what
    /// found no room, which is counted too.
    pub sequence: u64,
    /// Boot clock in nanoseconds (`bpf_ktime_get_boot_ns`).
    pub boot_ns: u64,
    /// Cgroup of the task.
    pub cgroup: u64,
    /// Start of the process on the boot clock, nanoseconds.
    pub start_boot_ns: u64,
    /// Start of its parent on the boot clock, nanoseconds.
    pub parent_start_boot_ns: u64,
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Thread id in the initial namespace.
    pub tid: u32,
    /// Process id of the parent.
    pub parent_pid: u32,
    /// Real user id.
    pub uid: u32,
    /// By class: the target's process id (privilege), the id of the parent cgroup (`CGROUP_MADE`).
    pub value: u64,
    /// Name of the thread, padded with NUL. Chosen by the agent.
    pub comm: [u8; 16],
}

/// Bytes of [`EventHeader`].
pub const HEADER_BYTES: usize = size_of::<EventHeader>();

/// Most bytes of an event.
pub const EVENT_BYTES: usize = HEADER_BYTES + 2 * (crate::limit::PATH_BYTES + 1);

// No padding: the sum of the fields is the size.
const _: () = assert!(HEADER_BYTES == 4 + 2 + 2 + 2 + 2 + 2 + 6 + 4 + 8 + 48 + 16 + 8 + 16);

/// A decoded event, borrowing from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The header; every byte that names something of ours has been checked.
    pub header: EventHeader,
    /// The class.
    pub class: Class,
    /// The hook.
    pub hook: HookId,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The object: a path, a network operand (see [`crate::name`]), or one byte (privilege, capability).
    pub object: &'a [u8],
    /// The new name of a rename or link; else empty.
    pub new_object: &'a [u8],
}

/// Why bytes are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the header, or than the lengths in it.
    Short,
    /// Written by a program of another version.
    Version(u16),
    /// A byte that names a class, hook, verdict, reason, fault, built-in or kind has no meaning: which, and the value.
    Unknown(&'static str, u16),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => f.write_str("event is shorter than its header says"),
            Self::Version(version) => write!(f, "event has layout version {version}, expected {EVENT_VERSION}"),
            Self::Unknown(what, value) => write!(f, "event has unknown {what} {value}"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl<'a> Event<'a> {
    /// Decodes the bytes of one ring entry. Bytes after the object are padding and ignored.
    ///
    /// # Errors
    /// See [`DecodeError`]; no bytes make it panic.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let header = EventHeader::decode(bytes)?;
        if header.version != EVENT_VERSION {
            return Err(DecodeError::Version(header.version));
        }
        let unknown = |what, value: u8| DecodeError::Unknown(what, value.into());
        let class = Class::from_byte(header.class).ok_or(unknown("class", header.class))?;
        let verdict = Verdict::from_byte(header.verdict).ok_or(unknown("verdict", header.verdict))?;
        let reason = Reason::from_byte(header.reason).ok_or(unknown("reason", header.reason))?;
        let hook = HookId::from_number(header.hook).ok_or(DecodeError::Unknown("hook", header.hook))?;
        if header.kind > kind::BINDING_LOST {
            return Err(unknown("kind", header.kind));
        }
        match reason {
            Reason::Fault if Fault::from_byte(header.detail).is_none() => {
                return Err(unknown("fault", header.detail));
            }
            Reason::Builtin if Builtin::from_byte(header.detail).is_none() => {
                return Err(unknown("built-in", header.detail));
            }
            _ => {}
        }
        let rest = bytes.get(HEADER_BYTES..).ok_or(DecodeError::Short)?;
        let (object, rest) = rest.split_at_checked(header.object_length.into()).ok_or(DecodeError::Short)?;
        let (new_object, _) = rest.split_at_checked(header.new_object_length.into()).ok_or(DecodeError::Short)?;
        Ok(Self { header, class, hook, verdict, reason, object, new_object })
    }

    /// The fault, where the reason is one.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        if self.reason == Reason::Fault { Fault::from_byte(self.header.detail) } else { None }
    }

    /// The built-in denial, where the reason is one.
    #[must_use]
    pub fn builtin(&self) -> Option<Builtin> {
        if self.reason == Reason::Builtin { Builtin::from_byte(self.header.detail) } else { None }
    }
}

/// Reads numbers from the front of some bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_ne_bytes)
    }
    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_ne_bytes)
    }
    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_ne_bytes)
    }
}

impl EventHeader {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        Ok(Self {
            version: r.u16()?,
            kind: r.u8()?,
            class: r.u8()?,
            hook: r.u16()?,
            verdict: r.u8()?,
            reason: r.u8()?,
            detail: r.u8()?,
            flags: r.u8()?,
            access: r.u16()?,
            errno: r.u16()?,
            labels: [r.u16()?, r.u16()?, r.u16()?],
            object_length: r.u16()?,
            new_object_length: r.u16()?,
            agent: r.u32()?,
            slot: r.u32()?,
            generation: r.u64()?,
            sequence: r.u64()?,
            boot_ns: r.u64()?,
            cgroup: r.u64()?,
            start_boot_ns: r.u64()?,
            parent_start_boot_ns: r.u64()?,
            pid: r.u32()?,
            tid: r.u32()?,
            parent_pid: r.u32()?,
            uid: r.u32()?,
            value: r.u64()?,
            comm: r.take()?,
        })
    }
}

const _: () = assert!(CLASSES < 256);
