//! Attaching: all hooks at start, and one that costs every task of the machine only while it is asked for.

use std::fs::File;
use std::io;

use agent_monitor_common::hook::{Attach, Hook};
use aya::Ebpf;
use aya::programs::links::{CgroupAttachMode, FdLink, LinkError};
use aya::programs::{BtfTracePoint, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, Lsm, ProgramError};

use super::error::{LoadError, explain};
use super::hook::{HookState, HookStatus};
use super::load::{LoadOptions, Loaded};
use super::pin::Pins;

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
        if state.status == HookStatus::Loaded && !state.on_request() {
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

/// A link to a cgroup always stands beside others; the kernel takes no flags with it (`cgroup_bpf_link_attach()` in
/// kernel/bpf/cgroup.c), and `Single` is aya's word for none.
const BESIDE_OTHERS: CgroupAttachMode = CgroupAttachMode::Single;

fn not_a_link(error: LinkError) -> ProgramError {
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
