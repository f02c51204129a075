//! The kernel programs and their maps, from user space: loading, attaching, writing images and bindings, reading counters
//! and rings. The only place that names aya, and the only one that knows what the kernel is asked for.

mod btf;
mod field;
mod image;
mod load;
#[cfg(feature = "kernel-log")]
mod log;
mod map;
mod misses;
mod probe;
mod ring;

pub use load::{HookState, HookStatus, LoadError, LoadOptions, Roots};
pub use map::{Counters, MapError, MapState};
pub use misses::ProgramMisses;
pub use probe::{FeatureState, probe};
pub use ring::Rings;

use agent_monitor_common::binding::Binding;
use agent_monitor_common::counter::AgentCounters;
use agent_monitor_common::hook::HookId;
use image::Images;
use map::Maps;
use std::path::Path;

/// The kernel programs, loaded and attached, and their maps. They are detached when this is dropped.
pub struct Programs {
    // Declared first, so that the programs are detached before their maps are closed.
    loaded: load::Loaded,
    system_calls: load::OnRequest,
    maps: Maps,
    images: Images,
}

impl Programs {
    /// Loads all programs of the hook table and attaches them.
    ///
    /// # Errors
    /// Says what is missing: see [`LoadError`]. Nothing stays attached then.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        let mut loaded = load::open(options)?;
        load::attach(&mut loaded, options)?;
        let images = Images::take(&mut loaded.object)?;
        let maps = Maps::take(&mut loaded.object)?;
        Ok(Self { loaded, system_calls: load::OnRequest::default(), maps, images })
    }

    /// Each hook of the table, and whether its program is attached.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookState> {
        self.loaded.hooks.clone()
    }

    /// Looks at each system call from now on, or no more: it costs every task of the machine.
    ///
    /// # Errors
    /// The kernel refused it, or has no such hook.
    pub fn watch_syscalls(&mut self, wanted: bool) -> Result<(), LoadError> {
        self.system_calls.set(&mut self.loaded, HookId::SysEnter, wanted)
    }

    /// Puts a policy's image into a slot: operations see the old image or the new one, never a mix.
    ///
    /// # Errors
    /// The image is larger than the largest size, or the kernel has no memory for it. The old image stays.
    pub fn set_image(&mut self, slot: u32, image: &[u8]) -> Result<(), MapError> {
        self.images.set(slot, image)
    }

    /// Empties a slot. Agents that are bound to it are denied everything, with the fault `no-image`.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn clear_image(&mut self, slot: u32) -> Result<(), MapError> {
        self.images.clear(slot)
    }

    /// Binds a cgroup by its id.
    ///
    /// # Errors
    /// The map is full or the kernel has no memory.
    pub fn bind(&mut self, cgroup: u64, binding: Binding) -> Result<(), MapError> {
        self.maps.bind(cgroup, binding)
    }

    /// Removes the binding of a cgroup; one that has none is left as it is.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn unbind(&mut self, cgroup: u64) -> Result<(), MapError> {
        self.maps.unbind(cgroup)
    }

    /// Makes the counters of an agent, all 0.
    ///
    /// # Errors
    /// The map is full or the kernel has no memory.
    pub fn add_agent(&mut self, agent: u32) -> Result<(), MapError> {
        self.maps.add_agent(agent)
    }

    /// Removes the counters of an agent; one that has none is left as it is.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn remove_agent(&mut self, agent: u32) -> Result<(), MapError> {
        self.maps.remove_agent(agent)
    }

    /// The counters of an agent; all 0 for one that has none.
    ///
    /// # Errors
    /// The kernel refused the read.
    pub fn agent_counters(&self, agent: u32) -> Result<AgentCounters, MapError> {
        self.maps.agent_counters(agent)
    }

    /// The counters of the node.
    ///
    /// # Errors
    /// The kernel refused the read.
    pub fn counters(&self) -> Result<Counters, MapError> {
        self.maps.counters()
    }

    /// Says which cgroup is the agents root and how deep it lies. Below it a task without a binding is denied everything
    /// once a binding could not be made.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn set_root(&mut self, cgroup: u64, level: u32) -> Result<(), MapError> {
        self.maps.set_root(cgroup, level)
    }

    /// Protects a process of the monitor from agents' signals, whatever their policy says.
    ///
    /// # Errors
    /// The process is gone, or the map is full.
    pub fn protect(&mut self, pid: u32) -> Result<(), MapError> {
        self.maps.protect(pid)
    }

    /// Each map, with how full it is.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn maps(&self) -> Result<Vec<MapState>, MapError> {
        self.maps.states()
    }

    /// How often the kernel skipped each program that is loaded, as the `/proc` at this path says.
    #[must_use]
    pub fn recursion_misses(&self, proc: &Path) -> Vec<ProgramMisses> {
        misses::read(&self.loaded, proc)
    }

    /// The rings of events. They can be taken once.
    ///
    /// # Errors
    /// They were taken before, or the kernel refused to map them.
    pub fn take_rings(&mut self) -> Result<Rings, LoadError> {
        Rings::take(&mut self.loaded.object)
    }
}
