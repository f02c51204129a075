//! Loading: one walk over the hook table, in which each program that this kernel has a hook for goes through its verifier.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use agent_monitor_common::hook::{Attach, HOOKS, Hook};
use agent_monitor_common::limit::{SCRATCH_CPUS, SCRATCH_PER_CPU};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, CgroupSkb, CgroupSockAddr, Lsm, Program, ProgramError, ProgramInfo};
use aya::{Ebpf, EbpfLoader};
use flate2::read::GzDecoder;

use super::btf::Btf;
use super::error::{LoadError, chain, explain};
use super::field;
use super::hook::{HookState, HookStatus, ProgramSize};
use super::pin::Pins;

/// The object, built and compressed by the build script: it is needed only where no programs are pinned yet.
pub(super) static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent-monitor-ebpf.gz"));

/// The object as aya reads it.
pub(super) fn object() -> Result<Vec<u8>, LoadError> {
    let mut object = Vec::new();
    let unpacked = GzDecoder::new(OBJECT).read_to_end(&mut object);
    unpacked.map_err(|error| LoadError::Object(format!("unpack it: {error}")))?;
    Ok(object)
}

/// Where the kernel's file systems are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// sysfs, usually `/sys`.
    pub sys: PathBuf,
    /// cgroup v2, usually `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() }
    }
}

/// How to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Go on without LSM programs, with the cgroup programs alone.
    pub partial: bool,
    /// Most cgroups that can be bound at once.
    pub bindings: u32,
    /// Where things are.
    pub roots: Roots,
    /// The BPF file system to pin everything on; without it all ends with the process.
    pub pins: Option<PathBuf>,
}

/// The object and what became of each hook.
pub struct Loaded {
    pub object: Ebpf,
    pub hooks: Vec<HookState>,
    /// What keeps the programs attached; not those on request.
    pub links: Vec<(&'static Hook, FdLink)>,
}

/// Makes the maps and loads each program, attaching none. Maps that are `shared` with another build are that build's own.
pub fn open(options: &LoadOptions, shared: &[(&'static str, PathBuf)]) -> Result<Loaded, LoadError> {
    let types = options.roots.sys.join("kernel/btf/vmlinux");
    let kernel = Btf::read(&types).map_err(LoadError::NoBtf)?;
    let constants = field::constants(&kernel).map_err(LoadError::MissingFields)?;
    let btf = aya::Btf::parse_file(&types, aya::Endianness::default())
        .map_err(|error| LoadError::NoBtf(error.to_string()))?;
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| LoadError::Object(format!("read {path}: {error}")))?;
    let cpus = u32::try_from(cpus).unwrap_or(SCRATCH_CPUS).min(SCRATCH_CPUS);
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(&btf))
        // Asked for after a refusal only; the whole log of a program that is refused late takes minutes to write.
        .verifier_log_level(aya::VerifierLogLevel::STATS)
        .map_max_entries("SCRATCH", cpus * SCRATCH_PER_CPU)
        .map_max_entries("BINDINGS", options.bindings);
    for (name, path) in shared {
        loader.map_pin_path(name, path.as_path());
    }
    for (symbol, value) in &constants {
        loader.override_global(symbol, value, true);
    }
    let forms = forms(&kernel);
    for (symbol, value) in &forms {
        loader.override_global(symbol, value, true);
    }
    let mut key = [0_u8; 16];
    let filled = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
    filled.map_err(|error| LoadError::Object(format!("get random numbers: {error}")))?;
    loader.override_global("FOLD_KEY", &key, true);
    let mut object = loader.load(&self::object()?).map_err(|error| LoadError::Object(chain(&error)))?;
    let mut statuses: Vec<_> = HOOKS.iter().map(|hook| (hook, present(hook, &kernel, options))).collect();
    load_all(&mut object, &mut statuses, &btf);
    let state = |(hook, status): (&'static Hook, Result<(), HookStatus>)| {
        let status = status.err().unwrap_or(HookStatus::Loaded);
        let info = object.program(hook.name).filter(|_| status == HookStatus::Loaded);
        let size = info.and_then(|program| program.info().ok()).map(|info| size(&info));
        HookState { hook, status, size }
    };
    let hooks = statuses.into_iter().map(state).collect();
    Ok(Loaded { object, hooks, links: Vec::new() })
}

/// What became of each hook whose programs are pinned; the inner error says what is missing among the pins.
pub fn standing(pins: &Pins, options: &LoadOptions) -> Result<Result<Vec<HookState>, String>, LoadError> {
    let kernel = Btf::read(&options.roots.sys.join("kernel/btf/vmlinux")).map_err(LoadError::NoBtf)?;
    if let Some(missing) = pins.lacks(|hook| present(hook, &kernel, options).is_ok()) {
        return Ok(Err(missing.to_owned()));
    }
    let state = |hook: &'static Hook| {
        let status = match present(hook, &kernel, options) {
            Err(status) => status,
            Ok(()) if pins.has_link(hook) => HookStatus::Attached,
            Ok(()) => HookStatus::Loaded,
        };
        let size = ProgramInfo::from_pin(pins.program_path(hook)).ok().map(|info| size(&info));
        HookState { hook, status, size }
    };
    Ok(Ok(HOOKS.iter().map(state).collect()))
}

/// Loads the programs of the hooks that are wanted (`Ok`), and puts down which were refused. Almost all of the time goes
/// into the kernel's verifier, which works on as many programs at once as it is asked to.
fn load_all(object: &mut Ebpf, statuses: &mut [(&'static Hook, Result<(), HookStatus>)], btf: &aya::Btf) {
    let mut programs: BTreeMap<String, &mut Program> =
        object.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let wanted = statuses.iter_mut().filter(|(_, status)| status.is_ok());
    let work: Vec<_> = wanted.map(|(hook, status)| (*hook, status, programs.remove(hook.name))).collect();
    let work = Mutex::new(work.into_iter());
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((hook, status, program)) = next() {
                    *status = load(program, hook, btf).map_err(|error| HookStatus::Refused(explain(&error)));
                }
            });
        }
    });
}

/// Whether the hook is to have a program, and the kernel has it in a form that the program was written for; else what became
/// of it.
fn present(hook: &Hook, kernel: &Btf, options: &LoadOptions) -> Result<(), HookStatus> {
    if options.partial && hook.attach.is_lsm() {
        return Err(HookStatus::Missing("left out, because partial enforcement was asked for".into()));
    }
    let lsm = || (format!("bpf_lsm_{}", hook.name), kernel.parameters(&format!("bpf_lsm_{}", hook.name)));
    let ((what, found), expected) = match hook.attach {
        Attach::Lsm(parameters) => (lsm(), [parameters; 2]),
        Attach::LsmForms(forms) => (lsm(), forms),
        Attach::Tracepoint(parameters) | Attach::TracepointOnRequest(parameters) => {
            ((format!("tracepoint {}", hook.name), kernel.tracepoint_parameters(hook.name)), [parameters; 2])
        }
        Attach::CgroupSockAddr | Attach::CgroupEgress => return Ok(()),
    };
    match found {
        None => Err(HookStatus::Missing(format!("this kernel has no {what}"))),
        Some(found) if expected.iter().any(|form| usize::from(*form) == found) => Ok(()),
        Some(found) => {
            let expected = expected.map(|form| form.to_string());
            let expected = if expected[0] == expected[1] { expected[0].clone() } else { expected.join(" or ") };
            Err(HookStatus::Refused(format!("{what} has {found} parameters in this kernel, expected {expected}")))
        }
    }
}

/// The constants that tell programs which form of their hook the kernel has, and what it makes of their answers.
fn forms(kernel: &Btf) -> Vec<(String, u32)> {
    let of = |hook: &&Hook| matches!(hook.attach, Attach::LsmForms(_));
    let constant = |hook: &Hook| {
        let found = kernel.parameters(&format!("bpf_lsm_{}", hook.name))?;
        Some((format!("{}_PARAMETERS", hook.name.to_uppercase()), u32::try_from(found).ok()?))
    };
    // The hook came with the correction.
    let not_asked = kernel.parameters("bpf_lsm_inode_xattr_skipcap").is_none();
    let asked = ("XATTR_NOT_ASKED".to_owned(), u32::from(not_asked));
    HOOKS.iter().filter(of).filter_map(constant).chain([asked]).collect()
}

fn load(program: Option<&mut Program>, hook: &Hook, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program = program.ok_or(ProgramError::NotLoaded)?;
    match hook.attach {
        Attach::Lsm(_) | Attach::LsmForms(_) => <&mut Lsm>::try_from(program)?.load(hook.name, btf),
        Attach::Tracepoint(_) | Attach::TracepointOnRequest(_) => {
            <&mut BtfTracePoint>::try_from(program)?.load(hook.name, btf)
        }
        Attach::CgroupSockAddr => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Attach::CgroupEgress => <&mut CgroupSkb>::try_from(program)?.load(),
    }
}

/// The kernel's own counts, as far as it tells them.
fn size(info: &ProgramInfo) -> ProgramSize {
    /// Size of a BPF instruction.
    const INSTRUCTION_BYTES: u32 = 8;
    ProgramSize {
        verified_instructions: info.verified_instruction_count(),
        translated_instructions: info.size_translated().map(|bytes| bytes / INSTRUCTION_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_and_the_hook_table_agree() {
        let object = aya_obj_programs();
        let mut table: Vec<&str> = HOOKS.iter().map(|hook| hook.name).collect();
        table.sort_unstable();
        assert_eq!(object, table);
    }

    /// Names of the programs in the object.
    fn aya_obj_programs() -> Vec<String> {
        let object = aya_obj::Object::parse(&object().expect("it can be unpacked")).expect("the object can be parsed");
        let mut names: Vec<String> = object.programs.keys().cloned().collect();
        names.sort_unstable();
        names
    }
}
