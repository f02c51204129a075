//! Bindings (which cgroup is which agent's).

/// Value of the map `BINDINGS`, keyed by cgroup id (`u64`). Written by the daemon and, for new child cgroups, by the
/// kernel program on `cgroup_mkdir`; read by the gate of each hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Binding {
    /// Slot of the policy's image.
    pub slot: u32,
    /// Number of the agent, which counters and records go by; not used again while the programs are loaded.
    pub agent: u32,
    /// A [`crate::class::Mode`].
    pub mode: u32,
    /// Bits, see [`flags`].
    pub flags: u32,
    /// Nothing.
    #[cfg(feature = "other-layout")]
    pub more: [u32; 2],
}

impl Binding {
    /// A binding.
    #[must_use]
    pub const fn new(slot: u32, agent: u32, mode: u32, flags: u32) -> Self {
        Self {
            slot,
            agent,
            mode,
            flags,
            #[cfg(feature = "other-layout")]
            more: [0; 2],
        }
    }

    /// Whether the cgroup is an agent's, and not a place where agents are made.
    #[inline(always)]
    #[must_use]
    pub const fn is_agent(&self) -> bool {
        self.flags & flags::ANNOUNCE_CHILDREN == 0
    }
}

/// Bits of [`Binding::flags`].
pub mod flags {
    /// Each cgroup that is made in this one is an agent of its own, and is announced by an event (the agents root and the
    /// policies' cgroups below it). Without it a new cgroup is of the same agent.
    pub const ANNOUNCE_CHILDREN: u32 = 1;
}

/// First number of agents that the kernel program on `cgroup_mkdir` makes; the daemon's own are lower.
pub const FIRST_KERNEL_AGENT: u32 = 1 << 31;

/// Slot of the built-in policy `empty`, which allows nothing.
pub const EMPTY_SLOT: u32 = 0;

#[cfg(not(feature = "other-layout"))]
const _: () = assert!(size_of::<Binding>() == 16);
