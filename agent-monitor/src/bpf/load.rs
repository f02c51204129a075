//! Loading and attaching: one walk over the hook table.

use super::btf::Btf;
use super::field;
use super::map::MapError;
use agent_monitor_common::hook::{Attach, HOOKS, Hook, HookId};
use agent_monitor_common::limit::{SCRATCH_CPUS, SCRATCH_PER_CPU};
use aya::programs::links::CgroupAttachMode;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, CgroupSockAddr, Lsm, Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The object, built by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-monitor-ebpf"));

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
}

/// Makes the maps and loads each program, attaching none.
pub fn open(options: &LoadOptions) -> Result<Loaded, LoadError> {
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
    for (symbol, value) in &constants {
        loader.override_global(symbol, value, true);
    }
    let forms = forms(&kernel);
    for (symbol, value) in &forms {
        loader.override_global(symbol, value, true);
    }
    let mut object = loader.load(OBJECT).map_err(|error| LoadError::Object(chain(&error)))?;
    let wanted = |hook: &Hook| {
        if options.partial && hook.attach.is_lsm() {
            return Err(HookStatus::Missing("left out, because partial enforcement was asked for".into()));
        }
        present(hook, &kernel)
    };
    let mut statuses: Vec<_> = HOOKS.iter().map(|hook| (hook, wanted(hook))).collect();
    load_all(&mut object, &mut statuses, &btf);
    let state = |(hook, status): (&'static Hook, Result<(), HookStatus>)| {
        let status = status.err().unwrap_or(HookStatus::Loaded);
        let size = (status == HookStatus::Loaded).then(|| size(&object, hook)).flatten();
        HookState { hook, status, size }
    };
    let hooks = statuses.into_iter().map(state).collect();
    Ok(Loaded { object, hooks })
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
                Ok(()) => HookStatus::Attached,
                Err(error) => HookStatus::Refused(explain(&error)),
            };
            if state.status != HookStatus::Attached {
                return Err(LoadError::Hooks(vec![state.clone()]));
            }
        }
    }
    Ok(())
}

/// Whether the kernel has the hook in a form that its program was written for; else what became of it.
fn present(hook: &Hook, kernel: &Btf) -> Result<(), HookStatus> {
    let lsm = || (format!("bpf_lsm_{}", hook.name), kernel.parameters(&format!("bpf_lsm_{}", hook.name)));
    let ((what, found), expected) = match hook.attach {
        Attach::Lsm(parameters) => (lsm(), [parameters; 2]),
        Attach::LsmForms(forms) => (lsm(), forms),
        Attach::Tracepoint(parameters) | Attach::TracepointOnRequest(parameters) => {
            ((format!("tracepoint {}", hook.name), kernel.tracepoint_parameters(hook.name)), [parameters; 2])
        }
        Attach::CgroupSockAddr => return Ok(()),
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

/// The constants that tell programs which form of their hook the kernel has.
fn forms(kernel: &Btf) -> Vec<(String, u32)> {
    let of = |hook: &&Hook| matches!(hook.attach, Attach::LsmForms(_));
    let constant = |hook: &Hook| {
        let found = kernel.parameters(&format!("bpf_lsm_{}", hook.name))?;
        Some((format!("{}_PARAMETERS", hook.name.to_uppercase()), u32::try_from(found).ok()?))
    };
    HOOKS.iter().filter(of).filter_map(constant).collect()
}

fn load(program: Option<&mut Program>, hook: &Hook, btf: &aya::Btf) -> Result<(), ProgramError> {
    let program = program.ok_or(ProgramError::NotLoaded)?;
    match hook.attach {
        Attach::Lsm(_) | Attach::LsmForms(_) => <&mut Lsm>::try_from(program)?.load(hook.name, btf),
        Attach::Tracepoint(_) | Attach::TracepointOnRequest(_) => {
            <&mut BtfTracePoint>::try_from(program)?.load(hook.name, btf)
        }
        Attach::CgroupSockAddr => <&mut CgroupSockAddr>::try_from(program)?.load(),
    }
}

/// The kernel's own count; `None` where it does not tell, which is no reason not to enforce.
fn size(object: &Ebpf, hook: &Hook) -> Option<ProgramSize> {
    /// Size of a BPF instruction.
    const INSTRUCTION_BYTES: u32 = 8;
    let program = object.program(hook.name)?;
    let info = program.info().ok()?;
    Some(ProgramSize {
        verified_instructions: info.verified_instruction_count(),
        translated_instructions: info.size_translated().map(|bytes| bytes / INSTRUCTION_BYTES),
    })
}

fn attach_one(object: &mut Ebpf, hook: &Hook, cgroup: &File) -> Result<(), ProgramError> {
    let program = object.program_mut(hook.name).ok_or(ProgramError::NotLoaded)?;
    match hook.attach {
        Attach::Lsm(_) | Attach::LsmForms(_) => <&mut Lsm>::try_from(program)?.attach().map(drop),
        Attach::Tracepoint(_) | Attach::TracepointOnRequest(_) => {
            <&mut BtfTracePoint>::try_from(program)?.attach().map(drop)
        }
        Attach::CgroupSockAddr => {
            // A link to a cgroup always stands beside others; the kernel takes no flags with it
            // (`cgroup_bpf_link_attach()` in kernel/bpf/cgroup.c), and `Single` is aya's word for none.
            <&mut CgroupSockAddr>::try_from(program)?.attach(cgroup, CgroupAttachMode::Single).map(drop)
        }
    }
}

/// The program that looks at each system call, attached while it is asked for.
#[derive(Default)]
pub struct OnRequest(Option<BtfTracePointLinkId>);

impl OnRequest {
    /// Attaches the program of `hook`, or detaches it.
    pub fn set(&mut self, loaded: &mut Loaded, hook: HookId, wanted: bool) -> Result<(), LoadError> {
        let Some(state) = loaded.hooks.iter_mut().find(|state| state.hook.id == hook) else { return Ok(()) };
        if wanted == self.0.is_some() {
            return Ok(());
        }
        if !state.loaded() {
            return Err(LoadError::Hooks(vec![state.clone()]));
        }
        let mut change = || -> Result<_, ProgramError> {
            let program = loaded.object.program_mut(state.hook.name).ok_or(ProgramError::NotLoaded)?;
            let program = <&mut BtfTracePoint>::try_from(program)?;
            match self.0.take() {
                Some(link) => program.detach(link).map(|()| None),
                None => program.attach().map(Some),
            }
        };
        match change() {
            Ok(link) => {
                state.status = if link.is_some() { HookStatus::Attached } else { HookStatus::Loaded };
                self.0 = link;
                Ok(())
            }
            Err(error) => {
                let status = HookStatus::Refused(explain(&error));
                Err(LoadError::Hooks(vec![HookState { status, ..state.clone() }]))
            }
        }
    }
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
