//! The maps, but for images and rings, in the words of the boundary. Values are arrays of numbers here, so that no
//! structure is reinterpreted.

use agent_monitor_common::binding::Binding;
use agent_monitor_common::class::{CLASSES, Class, Fault, Reason, Verdict};
use agent_monitor_common::counter::{self, AgentCounters};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};

use super::error::chain;

/// Where maps are opened: the object that was loaded, or the pins of one.
pub trait Open {
    /// The map with this name.
    ///
    /// # Errors
    /// There is none, or the kernel refuses.
    fn map(&mut self, name: &'static str) -> Result<Map, MapError>;
}

impl Open for Ebpf {
    fn map(&mut self, name: &'static str) -> Result<Map, MapError> {
        self.take_map(name).ok_or_else(|| MapError::new(name, "open", "the object has no such map"))
    }
}

/// A map that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} the map {map}: {reason}")]
pub struct MapError {
    pub(super) map: &'static str,
    pub(super) action: &'static str,
    pub(super) reason: String,
}

impl MapError {
    pub(super) fn new(map: &'static str, action: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { map, action, reason: reason.to_string() }
    }
}

/// A map and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapState {
    /// Its name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Most entries.
    pub capacity: u64,
}

/// The counters of the node at one moment.
#[derive(Clone, Debug)]
pub struct Counters(Vec<u64>);

impl Counters {
    /// Operations of `class` that ended with `verdict`.
    #[must_use]
    pub fn operations(&self, class: Class, verdict: Verdict) -> u64 {
        self.get(counter::operations(class as u8, verdict))
    }
    /// Denials of `class` for `reason`.
    #[must_use]
    pub fn denials(&self, class: Class, reason: Reason) -> u64 {
        self.get(counter::denials(class as u8, reason as u8))
    }
    /// How often `fault` happened.
    #[must_use]
    pub fn faults(&self, fault: Fault) -> u64 {
        self.get(counter::faults(fault as u8))
    }
    /// Denials whose event found no room.
    #[must_use]
    pub fn denials_lost(&self) -> u64 {
        self.get(counter::DENIALS_LOST)
    }
    /// Other events that found no room.
    #[must_use]
    pub fn telemetry_lost(&self) -> u64 {
        self.get(counter::TELEMETRY_LOST)
    }
    fn get(&self, index: u32) -> u64 {
        self.0.get(index as usize).copied().unwrap_or(0)
    }
}

/// `AgentCounters` as numbers: denied and audited by class, emitted, lost, telemetry lost, faults.
type AgentNumbers = [u64; size_of::<AgentCounters>() / size_of::<u64>()];
/// `Binding` as numbers: slot, agent, mode, flags.
type BindingNumbers = [u32; size_of::<Binding>() / size_of::<u32>()];

/// The maps.
pub struct Maps {
    bindings: HashMap<MapData, u64, BindingNumbers>,
    agents: HashMap<MapData, u32, AgentNumbers>,
    bindings_lost: Array<MapData, u32>,
    monitors: HashMap<MapData, u32, u64>,
    counters: PerCpuArray<MapData, u64>,
    capacities: [u32; 3],
    /// What was counted in maps that are not there any more.
    base: std::collections::HashMap<u32, AgentCounters>,
}

impl Maps {
    /// Opens the maps.
    pub fn take(source: &mut impl Open) -> Result<Self, MapError> {
        let mut capacities = [0; 3];
        let mut hash = |name, index: usize| -> Result<Map, MapError> {
            let map = source.map(name)?;
            if let (Map::HashMap(data), Some(capacity)) = (&map, capacities.get_mut(index)) {
                *capacity = data.info().map_or(0, |info| info.max_entries());
            }
            Ok(map)
        };
        let (bindings, agents, monitors) = (hash("BINDINGS", 0)?, hash("AGENTS", 1)?, hash("MONITORS", 2)?);
        Ok(Self {
            bindings: typed(bindings, "BINDINGS")?,
            agents: typed(agents, "AGENTS")?,
            monitors: typed(monitors, "MONITORS")?,
            bindings_lost: open(source, "BINDINGS_LOST")?,
            counters: open(source, "COUNTERS")?,
            capacities,
            base: std::collections::HashMap::new(),
        })
    }

    /// Every cgroup that is bound.
    pub fn bindings(&self) -> Result<Vec<(u64, Binding)>, MapError> {
        let read = |error| MapError::new("BINDINGS", "read", chain(&error));
        let entry = |(id, numbers): (u64, BindingNumbers)| (id, binding_of(numbers));
        self.bindings.iter().map(|found| found.map(entry).map_err(read)).collect()
    }

    /// The numbers of all agents that have counters.
    pub fn agent_numbers(&self) -> Result<Vec<u32>, MapError> {
        self.agents.keys().map(|key| key.map_err(|error| MapError::new("AGENTS", "read", chain(&error)))).collect()
    }

    /// How many cgroups could not be bound.
    pub fn bindings_lost(&self) -> Result<u32, MapError> {
        self.bindings_lost.get(&0, 0).map_err(|error| MapError::new("BINDINGS_LOST", "read", chain(&error)))
    }

    /// What a cgroup is bound to.
    pub fn binding(&self, cgroup: u64) -> Result<Option<Binding>, MapError> {
        match self.bindings.get(&cgroup, 0) {
            Ok(numbers) => Ok(Some(binding_of(numbers))),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(MapError::new("BINDINGS", "read", chain(&error))),
        }
    }

    /// Binds a cgroup.
    pub fn bind(&mut self, cgroup: u64, binding: Binding) -> Result<(), MapError> {
        let value = binding_numbers(binding);
        self.bindings.insert(cgroup, value, 0).map_err(|error| MapError::new("BINDINGS", "write", chain(&error)))
    }

    /// Binds a cgroup that is bound already to something else.
    pub fn rebind(&mut self, cgroup: u64, binding: Binding) -> Result<(), MapError> {
        /// `BPF_EXIST` (`include/uapi/linux/bpf.h`).
        const EXIST: u64 = 2;
        gone_is_fine(self.bindings.insert(cgroup, binding_numbers(binding), EXIST), "BINDINGS")
    }

    /// Removes the binding of a cgroup, where it has one.
    pub fn unbind(&mut self, cgroup: u64) -> Result<(), MapError> {
        gone_is_fine(self.bindings.remove(&cgroup), "BINDINGS")
    }

    /// Makes the counters of an agent, all 0.
    pub fn add_agent(&mut self, agent: u32) -> Result<(), MapError> {
        self.agents
            .insert(agent, AgentNumbers::default(), 0)
            .map_err(|error| MapError::new("AGENTS", "write", chain(&error)))
    }

    /// Removes the counters of an agent, where it has any.
    pub fn remove_agent(&mut self, agent: u32) -> Result<(), MapError> {
        self.base.remove(&agent);
        gone_is_fine(self.agents.remove(&agent), "AGENTS")
    }

    /// The counters of an agent, with what was counted before.
    pub fn agent_counters(&self, agent: u32) -> Result<AgentCounters, MapError> {
        let numbers = match self.agents.get(&agent, 0) {
            Ok(numbers) => numbers,
            Err(aya::maps::MapError::KeyNotFound) => AgentNumbers::default(),
            Err(error) => return Err(MapError::new("AGENTS", "read", chain(&error))),
        };
        let counters = agent_counters(&numbers);
        Ok(self.base.get(&agent).map_or(counters, |base| sum(&counters, base)))
    }

    /// Adds what was counted in maps that are not there any more.
    pub fn set_base(&mut self, base: std::collections::HashMap<u32, AgentCounters>) {
        self.base = base;
    }

    /// The counters of the node.
    pub fn counters(&self) -> Result<Counters, MapError> {
        let total = |index| {
            let values =
                self.counters.get(&index, 0).map_err(|error| MapError::new("COUNTERS", "read", chain(&error)))?;
            Ok(values.iter().sum())
        };
        (0..counter::COUNTERS).map(total).collect::<Result<_, _>>().map(Counters)
    }

    /// Protects a process of the monitor.
    pub fn protect(&mut self, pid: u32) -> Result<(), MapError> {
        let start = start_of(pid).map_err(|error| MapError::new("MONITORS", "write", error))?;
        self.monitors.insert(pid, start, 0).map_err(|error| MapError::new("MONITORS", "write", chain(&error)))
    }

    /// Forgets processes of the monitor that have ended.
    pub fn forget_monitors(&mut self) -> Result<(), MapError> {
        let failed = |error| MapError::new("MONITORS", "read", chain(&error));
        let known = self.monitors.iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
        for (pid, start) in known {
            if start_of(pid).ok() != Some(start) {
                gone_is_fine(self.monitors.remove(&pid), "MONITORS")?;
            }
        }
        Ok(())
    }

    /// Each map, with how full it is.
    pub fn states(&self) -> Result<Vec<MapState>, MapError> {
        fn entries<K>(
            map: &'static str,
            keys: impl Iterator<Item = Result<K, aya::maps::MapError>>,
        ) -> Result<u64, MapError> {
            let mut entries = 0;
            for key in keys {
                key.map_err(|error| MapError::new(map, "read", chain(&error)))?;
                entries += 1;
            }
            Ok(entries)
        }
        let counted = [
            ("BINDINGS", entries("BINDINGS", self.bindings.keys())?),
            ("AGENTS", entries("AGENTS", self.agents.keys())?),
            ("MONITORS", entries("MONITORS", self.monitors.keys())?),
        ];
        let state = |((name, entries), capacity): ((&'static str, u64), u32)| MapState {
            name,
            entries,
            capacity: capacity.into(),
        };
        Ok(counted.into_iter().zip(self.capacities).map(state).collect())
    }
}

/// Counters from the numbers in a map, as many as it has.
pub(super) fn agent_counters(numbers: &[u64]) -> AgentCounters {
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    let mut counters = AgentCounters::default();
    for class in 0..CLASSES {
        (counters.denied[class], counters.audited[class]) = (at(class), at(CLASSES + class));
    }
    [counters.emitted, counters.lost, counters.telemetry_lost, counters.faults] =
        [0, 1, 2, 3].map(|index| at(2 * CLASSES + index));
    counters
}

/// The sum of two counters.
fn sum(one: &AgentCounters, other: &AgentCounters) -> AgentCounters {
    let mut sum = *one;
    for class in 0..CLASSES {
        sum.denied[class] += other.denied[class];
        sum.audited[class] += other.audited[class];
    }
    sum.emitted += other.emitted;
    sum.lost += other.lost;
    sum.telemetry_lost += other.telemetry_lost;
    sum.faults += other.faults;
    sum
}

/// Start of a process in clock ticks since boot, as `/proc/PID/stat` has it (field 22; the kernel's `start_boottime` in
/// hundredths of a second).
fn start_of(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("read {path}: {error}"))?;
    // The name in parentheses may hold anything; what follows the last one are numbers.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).ok_or(format!("{path} has no start time"))
}

pub(super) fn open<T: TryFrom<Map>>(source: &mut impl Open, name: &'static str) -> Result<T, MapError>
where
    T::Error: std::fmt::Display,
{
    typed(source.map(name)?, name)
}

fn typed<T: TryFrom<Map>>(map: Map, name: &'static str) -> Result<T, MapError>
where
    T::Error: std::fmt::Display,
{
    T::try_from(map).map_err(|error| MapError::new(name, "open", error))
}

fn binding_of(numbers: BindingNumbers) -> Binding {
    Binding::new(numbers[0], numbers[1], numbers[2], numbers[3])
}

fn binding_numbers(binding: Binding) -> BindingNumbers {
    let mut numbers = BindingNumbers::default();
    numbers[..4].copy_from_slice(&[binding.slot, binding.agent, binding.mode, binding.flags]);
    numbers
}

fn gone_is_fine(result: Result<(), aya::maps::MapError>, map: &'static str) -> Result<(), MapError> {
    match result {
        Err(aya::maps::MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(aya::maps::MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(error) => Err(MapError::new(map, "write", chain(&error))),
    }
}
