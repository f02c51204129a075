//! The kernel programs and their maps, from user space: loading, attaching, writing images and bindings, reading counters
//! and rings, and pinning it all. The only place that names aya, and the only one that knows what the kernel is asked for.

mod attach;
mod btf;
mod earlier;
mod error;
mod field;
mod fold;
mod hook;
mod image;
mod load;
mod loader;
#[cfg(feature = "kernel-log")]
mod log;
mod map;
mod migrate;
mod misses;
mod pin;
mod prepare;
mod probe;
mod raw;
mod removal;
mod ring;

pub use earlier::Counted;
pub use error::LoadError;
pub use fold::Repeats;
pub use hook::{HookState, HookStatus};
pub use load::{LoadOptions, Roots};
pub use loader::serve as serve_loading;
#[cfg(test)]
pub use loader::words as loading_words;
pub use map::{Counters, MapError, MapState};
pub use misses::ProgramMisses;
pub use probe::{FeatureState, probe};
pub use removal::{Removal, Removed};
pub use ring::{MOST_DENIALS, Rings};

use agent_monitor_common::binding::Binding;
use agent_monitor_common::counter::AgentCounters;
use agent_monitor_common::hook::{Hook, HookId};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{ProgramFd, ProgramInfo};
use image::Images;
use map::Maps;
use pin::{Pins, Place};
use prepare::Prepared;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// The kernel programs, loaded and attached, and their maps. Without pins they are detached when this is dropped.
pub struct Programs {
    // Declared first, so that the programs are detached before their maps are closed.
    links: Vec<(&'static Hook, FdLink)>,
    /// Keeps the program attached that looks at each system call.
    system_calls: Option<FdLink>,
    /// The object, where nothing is pinned.
    object: Option<Ebpf>,
    /// The pins, where there are any.
    pins: Option<Pins>,
    place: Option<Place>,
    /// Those of other builds, which end once ours are kept.
    earlier: Vec<Pins>,
    taken_over: bool,
    /// The programs that are pinned: what the kernel tells of a program, it tells of a descriptor.
    descriptors: Vec<(&'static Hook, ProgramFd)>,
    hooks: Vec<HookState>,
    maps: Maps,
    images: Images,
}

impl Programs {
    /// Loads all programs of the hook table and attaches them; where this build's are pinned and attached already, takes
    /// these over with all that is in their maps. Where another build's are, both are attached until [`Self::keep`].
    ///
    /// # Errors
    /// Says what is missing: see [`LoadError`]. Nothing stays attached then that was not before.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        let Some(bpffs) = &options.pins else {
            let mut loaded = load::open(options, &[])?;
            attach::attach(&mut loaded, options)?;
            let (maps, images) = (Maps::take(&mut loaded.object)?, Images::take(&mut loaded.object)?);
            let mut programs = Self::of(loaded.hooks, maps, images);
            (programs.links, programs.object) = (loaded.links, Some(loaded.object));
            return Ok(programs);
        };
        let place = Place::hold(bpffs)?;
        // The log of the programs can be read by the process that loaded them only.
        let prepare = if cfg!(feature = "kernel-log") { prepare::prepare } else { loader::prepare };
        let prepared = prepare(&place, options)?;
        if let Some(why) = &prepared.replaces {
            tracing::warn!("{why}: all was loaded anew");
        }
        Self::pinned(prepared, place)
    }

    fn pinned(prepared: Prepared, place: Place) -> Result<Self, LoadError> {
        let Prepared { pins, earlier, taken_over, hooks, .. } = prepared;
        let (maps, images) = (Maps::take(&mut &pins)?, Images::take(&mut &pins)?);
        let mut programs = Self { earlier, taken_over, ..Self::of(hooks, maps, images) };
        if taken_over {
            let looking = programs.images.look_for_unused(Images::take(&mut &pins)?);
            looking.map_err(|error| MapError::new("IMAGES_SMALL", "start a thread that reads", error))?;
        }
        for state in programs.hooks.iter().filter(|state| state.loaded()) {
            // One that can't be opened is told where its numbers are read.
            let opened = ProgramInfo::from_pin(pins.program_path(state.hook)).and_then(|info| info.fd());
            programs.descriptors.extend(opened.ok().map(|program| (state.hook, program)));
        }
        (programs.pins, programs.place) = (Some(pins), Some(place));
        Ok(programs)
    }

    fn of(hooks: Vec<HookState>, maps: Maps, images: Images) -> Self {
        Self {
            links: Vec::new(),
            system_calls: None,
            object: None,
            pins: None,
            place: None,
            earlier: Vec::new(),
            taken_over: false,
            descriptors: Vec::new(),
            hooks,
            maps,
            images,
        }
    }

    /// Each hook of the table, and whether its program is attached.
    #[must_use]
    pub fn hooks(&self) -> Vec<HookState> {
        self.hooks.clone()
    }

    /// Looks at each system call from now on, or no more: it costs every task of the machine.
    ///
    /// # Errors
    /// The kernel refused it, or has no such hook.
    pub fn watch_syscalls(&mut self, wanted: bool) -> Result<(), LoadError> {
        let Some(state) = self.hooks.iter_mut().find(|state| state.hook.id == HookId::SysEnter) else { return Ok(()) };
        attach::set_on_request(state, self.object.as_mut(), self.pins.as_ref(), &mut self.system_calls, wanted)
    }

    /// One more descriptor of each link: the programs stay attached while somebody has these open, whatever becomes of this
    /// process. Where there are pins, these do that, and there is none.
    ///
    /// # Errors
    /// The kernel refused one.
    pub fn hold(&self) -> io::Result<Vec<OwnedFd>> {
        let links = self.links.iter().map(|(_, link)| link).chain(&self.system_calls);
        links.map(|link| raw::link(link.info().map_err(io::Error::other)?.id())).collect()
    }

    /// Every cgroup that is bound, with its binding.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn bindings(&self) -> Result<Vec<(u64, Binding)>, MapError> {
        self.maps.bindings()
    }

    /// How many cgroups could not be bound: while it is not 0, everything below the agents root is denied that is not bound.
    ///
    /// # Errors
    /// The kernel refused the read.
    pub fn bindings_lost(&self) -> Result<u32, MapError> {
        self.maps.bindings_lost()
    }

    /// The numbers of all agents that have counters.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn agent_numbers(&self) -> Result<Vec<u32>, MapError> {
        self.maps.agent_numbers()
    }

    /// The image that is in a slot.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn image(&self, slot: u32) -> Result<Option<Vec<u8>>, MapError> {
        self.images.get(slot)
    }

    /// The slots that have an image.
    ///
    /// # Errors
    /// The kernel refused a read.
    pub fn slots(&self) -> Result<Vec<u32>, MapError> {
        self.images.slots()
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

    /// Gives back some of the images that an earlier daemon left and no slot points to. To be called every second or so,
    /// until none is left.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn remove_unused_images(&mut self) -> Result<(), MapError> {
        self.images.remove_unused()
    }

    /// Binds a cgroup by its id.
    ///
    /// # Errors
    /// The map is full or the kernel has no memory.
    pub fn bind(&mut self, cgroup: u64, binding: Binding) -> Result<(), MapError> {
        self.maps.bind(cgroup, binding)
    }

    /// Binds a cgroup that is bound already to something else; one that is not bound (any more) is left as it is.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn rebind(&mut self, cgroup: u64, binding: Binding) -> Result<(), MapError> {
        self.maps.rebind(cgroup, binding)
    }

    /// What a cgroup is bound to.
    ///
    /// # Errors
    /// The kernel refused the read.
    pub fn binding(&self, cgroup: u64) -> Result<Option<Binding>, MapError> {
        self.maps.binding(cgroup)
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

    /// Protects a process of the monitor from agents' signals, whatever their policy says.
    ///
    /// # Errors
    /// The process is gone, or the map is full.
    pub fn protect(&mut self, pid: u32) -> Result<(), MapError> {
        // Those of earlier daemons take room, and do nothing else: a process that has such a number now started later.
        self.maps.forget_monitors()?;
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
        let descriptor = |hook: &Hook| {
            if let Some((_, program)) = self.descriptors.iter().find(|(known, _)| known.id == hook.id) {
                return Ok(program.as_fd().as_raw_fd());
            }
            let program = self.object.as_ref().and_then(|object| object.program(hook.name));
            let program = program.ok_or("the object has no such program")?.fd().map_err(|error| error.to_string())?;
            Ok(program.as_fd().as_raw_fd())
        };
        misses::read(&self.hooks, descriptor, proc)
    }

    /// The rings of events. They can be taken once.
    ///
    /// # Errors
    /// They were taken before, or the kernel refused to map them.
    pub fn take_rings(&mut self) -> Result<Rings, LoadError> {
        match (&mut self.object, &self.pins) {
            (Some(object), _) => {
                #[cfg(feature = "kernel-log")]
                log::read(object)?;
                Rings::take(object)
            }
            (None, Some(pins)) => {
                let mut rings = Rings::take(&mut { pins })?;
                self.earlier.iter().try_for_each(|earlier| rings.add(earlier, pins))?;
                Ok(rings)
            }
            (None, None) => Err(MapError::new("DENIALS", "open", "nothing is loaded").into()),
        }
    }
}
