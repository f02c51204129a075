//! Every limit of the product that the kernel programs, the compiler and the daemon must agree on, with its reason.
//! Nothing is cut silently: passing one of these is an error or a fault with a name, and a counter.

/// Longest path in bytes that is decided, without the terminating NUL: the kernel's own `PATH_MAX` (4096) less the NUL.
/// A longer one (possible in deep trees that were entered by relative names) is the fault `path-too-long`.
pub const PATH_BYTES: usize = 4095;

/// Longest single name in a path: `NAME_MAX` of the kernel (`include/uapi/linux/limits.h`).
pub const NAME_BYTES: usize = 255;

/// Most components (names and mount crossings) of one path. A path of [`PATH_BYTES`] has at most 2,048 names; the rest is
/// room for mount points. One that needs more is the fault `path-too-long`.
pub const PATH_STEPS: u32 = 2304;

/// Most mounts of one file system that are looked at for the names of a file, in all mount namespaces: a node's disk has
/// some for each container. With more of them, a file whose name was not found before is the fault `path-unreadable`.
pub const MOUNTS: u32 = 1 << 16;

/// Sizes in bytes of the image classes: a policy's image lies in the smallest that holds it. Powers of two, because the
/// kernel programs mask each offset with size - 1. A larger image is refused when the policy is compiled.
pub const IMAGE_SIZES: [usize; 3] = [64 << 10, 512 << 10, 4 << 20];

/// Most states of one automaton: state numbers are 16 bits wide in an image, which halves its size.
pub const STATES: usize = 65_535;

/// Most labels (different sets of matching rules) of one image: label numbers are 16 bits wide.
pub const LABELS: usize = 65_535;

/// Most policies in the kernel at once: entries of the outer image maps (8 bytes each).
pub const POLICIES: u32 = 4096;

/// Most cgroups bound at once (settable): entries of the binding map, allocated as they are used.
pub const BINDINGS: u32 = 1 << 20;

/// Most agents with counters at once: entries of the counter map, allocated as they are used.
pub const AGENTS: u32 = 1 << 20;

/// Scratch buffers for each CPU. Programs can be preempted in the middle of a decision by another task that runs one on
/// the same CPU; each then needs its own. When all are taken the operation is the fault `no-scratch`.
pub const SCRATCH_PER_CPU: u32 = 8;

/// Most CPUs that have scratch buffers of their own; on a larger machine the buffers are shared by several CPUs.
pub const SCRATCH_CPUS: u32 = 256;
const _: () = assert!(SCRATCH_CPUS.is_power_of_two(), "the kernel programs mask the number of the processor");

/// Bytes of the ring that only denials and losses use. A denial of a short path takes about 250 bytes, so some 8,000 wait
/// here for a daemon that is busy. The kernel maps a ring twice into who reads it (`ringbuf_map_mmap_user`).
pub const DENIAL_RING_BYTES: usize = 2 << 20;

/// Bytes of the ring for everything else: audit verdicts, agents that come and go.
pub const TELEMETRY_RING_BYTES: usize = 1 << 19;

/// Denials that are folded at once, of all agents: slots of 376 bytes. What finds no slot is told each time.
pub const FOLDS: u32 = 8192;

/// Longest name of an abstract unix socket: `sizeof(sun_path)` (108) less the leading NUL.
pub const ABSTRACT_NAME_BYTES: usize = 107;

/// Most addresses of one SCTP call that are judged; with more it is the fault `address-unreadable`. Hosts have a few.
pub const SCTP_ADDRESSES: u32 = 8;

/// Most processes of the monitor that are protected from agents' signals at once (daemon and `run`s).
pub const MONITORS: u32 = 1024;

/// Most System V objects of agents at once: what all may make by the kernel's own limits (`SHMMNI` 4,096, `MSGMNI` and
/// `SEMMNI` 32,000 in a namespace). One more is as if an outsider had made it, so its own agent may not use it.
pub const IPC_OBJECTS: u32 = 1 << 16;

const _: () = {
    let mut i = 0;
    while i < IMAGE_SIZES.len() {
        assert!(IMAGE_SIZES[i].is_power_of_two());
        i += 1;
    }
};
