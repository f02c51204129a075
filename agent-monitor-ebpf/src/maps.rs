//! All maps of the kernel programs.

use crate::scratch::Scratch;
use agent_monitor_common::binding::Binding;
use agent_monitor_common::counter::{self, AgentCounters};
use agent_monitor_common::fold::Folded;
use agent_monitor_common::limit;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

const GROWING: usize = BPF_F_NO_PREALLOC as usize;
/// User space may map it.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// Cgroup id to binding. Written by the daemon and by `cgroup_mkdir`; read by each hook's gate.
#[btf_map]
pub static BINDINGS: HashMap<u64, Binding, { limit::BINDINGS as usize }, GROWING> = HashMap::new();

/// Counters by agent number. Entries made by the daemon and by `cgroup_mkdir`; added to by all hooks.
#[btf_map]
pub static AGENTS: HashMap<u32, AgentCounters, { limit::AGENTS as usize }, GROWING> = HashMap::new();

/// By slot: 1 + index of the image map that holds the slot's image, 0 for none. Written by the daemon, after the image.
#[btf_map]
pub static SLOTS: Array<u32, { limit::POLICIES as usize }> = Array::new();

/// Images of at most `IMAGE_SIZES[0]` bytes by slot. Written by the daemon; read by all hooks.
#[btf_map]
pub static IMAGES_SMALL: ArrayOfMaps<Array<[u8; limit::IMAGE_SIZES[0]], 1>, { limit::POLICIES as usize }> =
    ArrayOfMaps::new();

/// Images of at most `IMAGE_SIZES[1]` bytes by slot.
#[btf_map]
pub static IMAGES_MEDIUM: ArrayOfMaps<Array<[u8; limit::IMAGE_SIZES[1]], 1>, { limit::POLICIES as usize }> =
    ArrayOfMaps::new();

/// Images of at most `IMAGE_SIZES[2]` bytes by slot.
#[btf_map]
pub static IMAGES_LARGE: ArrayOfMaps<Array<[u8; limit::IMAGE_SIZES[2]], 1>, { limit::POLICIES as usize }> =
    ArrayOfMaps::new();

/// How many cgroups should have a binding and could not get one. While it is not 0, a task without a binding below a
/// cgroup that has one is denied everything. Written by `cgroup_mkdir`; read by each hook's gate and by the daemon.
#[btf_map]
pub static BINDINGS_LOST: Array<u32, 1> = Array::new();

/// Processes of the monitor: process id to start in clock ticks since boot. Written by the daemon.
#[btf_map]
pub static MONITORS: HashMap<u32, u64, { limit::MONITORS as usize }, GROWING> = HashMap::new();

/// Address of the `struct kern_ipc_perm` of a System V object to the agent that made it. Written where one is made and
/// removed; read where one is used.
#[btf_map]
pub static IPC_OBJECTS: HashMap<u64, u32, { limit::IPC_OBJECTS as usize }, GROWING> = HashMap::new();

/// Counters of the node, see `agent_monitor_common::counter`. Read by the daemon.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { counter::COUNTERS as usize }> = PerCpuArray::new();

/// Index 0: the sequence number of the next event; 1: how many agents the kernel has made.
#[btf_map]
pub static SEQUENCES: Array<u64, 2> = Array::new();

/// Scratch buffers, `SCRATCH_PER_CPU` for each CPU; the loader sets the number of entries.
#[btf_map]
pub static SCRATCH: Array<Scratch, { limit::SCRATCH_PER_CPU as usize }> = Array::new();

/// Tags and counts of folded denials, see `agent_monitor_common::fold`. The daemon has them in its memory.
#[btf_map]
pub static FOLD_WORDS: Array<u64, { limit::FOLDS as usize }, MAPPED> = Array::new();

/// Their events. Written by whoever told one; read by the daemon.
#[btf_map]
pub static FOLDED: Array<Folded, { limit::FOLDS as usize }> = Array::new();

/// Denials and losses of bindings. Read by the daemon.
#[btf_map]
pub static DENIALS: RingBuf<u8, { limit::DENIAL_RING_BYTES }> = RingBuf::new();

/// All other events. Read by the daemon.
#[btf_map]
pub static TELEMETRY: RingBuf<u8, { limit::TELEMETRY_RING_BYTES }> = RingBuf::new();
