//! Loading and attaching: one walk over the hook table.

use super::btf::Btf;
use super::field;
use super::map::MapError;
use agent_monitor_common::hook::{Attach, HOOKS, Hook};
use agent_monitor_common::limit::{SCRATCH_CPUS, SCRATCH_PER_CPU};
use aya::programs::links::{CgroupAttachMode, FdLink};
use aya::programs::{
    BtfTracePoint, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Lsm, Program, ProgramError, ProgramInfo,
};
use aya::{Ebpf, EbpfLoader};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::pin::Pins;

/// The object, built by the build script.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-monitor-ebpf"));

/// Where the kernel's file systems are mounted.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

/// A hook and what became of it.
#[derive(Clone, Debug)]
pub struct HookState {
    /// Its row in the table.
    pub hook: &'static Hook,
    /// What became of it.
    pub status: HookStatus,
    /// How large its program is; `None` where it is not loaded.
    pub size: Option<ProgramSize>,
}

/// How large a program is to the kernel: how near it is to being refused, and how much it adds to an operation at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Instructions that the verifier went through on all paths together; it refuses a program with more than a million.
    pub verified_instructions: Option<u32>,
    /// Instructions of the program itself, as the kernel translated it.
    pub translated_instructions: Option<u32>,
}

impl HookState {
    /// Whether its program does not run although something would pass for that: not so for a hook that this kernel may
    /// lack, and not before it was attached.
    #[must_use]
    pub fn lacking(&self) -> bool {
        match self.status {
            HookStatus::Attached => false,
            HookStatus::Missing(_) => !self.hook.optional(),
            HookStatus::Loaded => !self.on_request(),
            HookStatus::Refused(_) => true,
        }
    }

    /// Whether its program is in the kernel, attached or not.
    #[must_use]
    pub fn loaded(&self) -> bool {
        matches!(self.status, HookStatus::Loaded | HookStatus::Attached)
    }

    /// Whether its program runs only while a bound policy asks for it.
    #[must_use]
    pub fn on_request(&self) -> bool {
        matches!(self.hook.attach, Attach::TracepointOnRequest(_))
    }
}

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookStatus {
    /// Loaded, not attached yet.
    Loaded,
    /// Its program runs.
    Attached,
    /// The kernel has no such hook, or another form of it.
    Missing(String),
    /// The kernel refused the program: why.
    Refused(String),
}

/// Why the programs are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF, or none that can be read.
    #[error("{0}: this kernel does not describe its types; use one with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(String),
    /// Fields that the programs read are not in this kernel.
    #[error("this kernel lacks {}: no build of agent-monitor supports it yet", .0.join(", "))]
    MissingFields(Vec<String>),
    /// The object was refused as a whole: a map could not be made.
    #[error("load the kernel programs: {0}")]
    Object(String),
    /// Hooks that must be there are not.
    #[error("{}", refused(.0))]
    Hooks(Vec<HookState>),
    /// The root of the cgroup hierarchy could not be opened.
    #[error("open the cgroup hierarchy {}: {error}; mount cgroup2 there", path.display())]
    Cgroup {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it could not be opened.
        error: std::io::Error,
    },
    /// A map of the object could not be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Programs of a build are pinned whose maps mean other things.
    #[error(
        "this node is guarded by programs that this version can't take over ({0}): start a daemon of that version, or end \
         enforcement with `agent-monitor daemon --uninstall`"
    )]
    OtherPins(String),
    /// The pins could not be read or changed.
    #[error("cannot {action} the pins {}: {error}", path.display())]
    Pins {
        /// Which.
        path: PathBuf,
        /// What was to be done with them.
        action: &'static str,
        /// Why it could not be.
        error: io::Error,
    },
}

impl LoadError {
    pub(super) fn pins(path: &Path, action: &'static str, error: io::Error) -> Self {
        Self::Pins { path: path.to_owned(), action, error }
    }
}

fn refused(hooks: &[HookState]) -> String {
    let line = |state: &HookState| match &state.status {
        HookStatus::Missing(why) => format!("hook {}: missing: {why}", state.hook.name),
        HookStatus::Refused(why) => format!("hook {}: refused: {why}", state.hook.name),
        HookStatus::Loaded | HookStatus::Attached => format!("hook {}", state.hook.name),
    };
    let lines: Vec<String> = hooks.iter().map(line).collect();
    format!("{} of {} hooks can't be used:\n{}", lines.len(), HOOKS.len(), lines.join("\n"))
}

/// The object and what became of each hook.
pub struct Loaded {
    pub object: Ebpf,
    pub hooks: Vec<HookState>,
    /// What keeps the programs attached; not those on request.
    pub links: Vec<(&'static Hook, FdLink)>,
}

/// Makes the maps and loads each program, attaching none.
/// Maps that are `shared` with another build are its own.
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
    let mut object = loader.load(OBJECT).map_err(|error| LoadError::Object(chain(&error)))?;
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

/// Attaches every loaded program; all hooks must be there, or with `partial` all that are no LSM hooks.
pub fn attach(loaded: &mut Loaded, options: &LoadOptions) -> Result<(), LoadError> {
    let needed = |state: &HookState| {
        let left_out = options.partial && state.hook.attach.is_lsm();
        let not_built = state.hook.optional() && matches!(state.status, HookStatus::Missing(_));
        !left_out && !not_built
    };
    let bad: Vec<HookState> =
        loaded.hooks.iter().filter(|state| needed(state) && state.status != HookStatus::Loaded).cloned().collect();
    if !bad.is_empty() {
        return Err(LoadError::Hooks(bad));
    }
    let path = &options.roots.cgroup;
    let cgroup = File::open(path).map_err(|error| LoadError::Cgroup { path: path.clone(), error })?;
    for state in &mut loaded.hooks {
        let on_request = matches!(state.hook.attach, Attach::TracepointOnRequest(_));
        if state.status == HookStatus::Loaded && !on_request {
            state.status = match attach_one(&mut loaded.object, state.hook, &cgroup) {
                Ok(link) => {
                    loaded.links.push((state.hook, link));
                    HookStatus::Attached
                }
                Err(error) => HookStatus::Refused(explain(&error)),
            };
            if state.status != HookStatus::Attached {
                return Err(LoadError::Hooks(vec![state.clone()]));
            }
        }
    }
    Ok(())
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

/// A link to a cgroup always stands beside others; the kernel takes no flags with it (`cgroup_bpf_link_attach()` in
/// kernel/bpf/cgroup.c), and `Single` is aya's word for none.
const BESIDE_OTHERS: CgroupAttachMode = CgroupAttachMode::Single;

fn not_a_link(error: aya::programs::links::LinkError) -> ProgramError {
    ProgramError::IOError(io::Error::other(error))
}

/// Attaches a program. It is detached when the link is dropped, or when the link's pin is removed.
fn attach_one(object: &mut Ebpf, hook: &Hook, cgroup: &File) -> Result<FdLink, ProgramError> {
    let program = object.program_mut(hook.name).ok_or(ProgramError::NotLoaded)?;
    match hook.attach {
        Attach::Lsm(_) | Attach::LsmForms(_) => {
            let program = <&mut Lsm>::try_from(program)?;
            let link = program.attach()?;
            program.take_link(link).map(FdLink::from)
        }
        Attach::Tracepoint(_) | Attach::TracepointOnRequest(_) => attach_tracepoint(program.try_into()?),
        Attach::CgroupSockAddr => {
            let program = <&mut CgroupSockAddr>::try_from(program)?;
            let link = program.attach(cgroup, BESIDE_OTHERS)?;
            FdLink::try_from(program.take_link(link)?).map_err(not_a_link)
        }
        Attach::CgroupEgress => {
            let program = <&mut CgroupSkb>::try_from(program)?;
            let link = program.attach(cgroup, CgroupSkbAttachType::Egress, BESIDE_OTHERS)?;
            FdLink::try_from(program.take_link(link)?).map_err(not_a_link)
        }
    }
}

fn attach_tracepoint(program: &mut BtfTracePoint) -> Result<FdLink, ProgramError> {
    let link = program.attach()?;
    program.take_link(link).map(FdLink::from)
}

/// Attaches the program of `hook`, or detaches it.
pub fn set_on_request(
    state: &mut HookState,
    object: Option<&mut Ebpf>,
    pins: Option<&Pins>,
    link: &mut Option<FdLink>,
    wanted: bool,
) -> Result<(), LoadError> {
    let attached = state.status == HookStatus::Attached;
    if wanted == attached {
        return Ok(());
    }
    if !matches!(state.status, HookStatus::Loaded | HookStatus::Attached) {
        return Err(LoadError::Hooks(vec![state.clone()]));
    }
    let hook = state.hook;
    let refused = |error: ProgramError| {
        LoadError::Hooks(vec![HookState { status: HookStatus::Refused(explain(&error)), ..state.clone() }])
    };
    match (wanted, pins) {
        (true, Some(pins)) => {
            let mut program = pins.tracepoint(hook).map_err(refused)?;
            pins.add_link(hook, attach_tracepoint(&mut program).map_err(refused)?)?;
        }
        (false, Some(pins)) => pins.remove_link(hook)?,
        (true, None) => {
            let program = object.and_then(|object| object.program_mut(hook.name));
            let program = program.ok_or(ProgramError::NotLoaded).and_then(<&mut BtfTracePoint>::try_from);
            *link = Some(program.and_then(attach_tracepoint).map_err(refused)?);
        }
        (false, None) => *link = None,
    }
    state.status = if wanted { HookStatus::Attached } else { HookStatus::Loaded };
    Ok(())
}

/// A refusal in words, with the end of the verifier's, where it says why.
fn explain(error: &ProgramError) -> String {
    const LAST_LINES: usize = 30;
    /// Who may not load programs gets EPERM; a program that the verifier refuses gets EACCES or another errno.
    const EPERM: i32 = 1;
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        if io_error.raw_os_error() == Some(EPERM) {
            return format!("{io_error}: this host does not let anybody load such programs");
        }
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        return format!(
            "{io_error}; the verifier's last words:\n{}",
            lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
        );
    }
    chain(error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
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
        let object = aya_obj::Object::parse(OBJECT).expect("the object can be parsed");
        let mut names: Vec<String> = object.programs.keys().cloned().collect();
        names.sort_unstable();
        names
    }
}
