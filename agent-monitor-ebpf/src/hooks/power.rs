//! Powers that are there or not: hooks whose arguments say nothing that the verdict depends on.

use crate::kernel::Kernel;
use crate::operation::{Operation, guard};
use crate::path::operand;
use crate::scratch::reload;
use crate::task::{calls, process};
use agent_monitor_common::class::{Builtin, Class, Reason, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::field::MISSING;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// Judges whether the agent has a privilege.
#[inline(always)]
pub fn judge(operation: &mut Operation<'_>, privilege: Privilege) -> bool {
    let object = operand(operation.scratch.object(), [privilege as u8]);
    let object = operation.set_object(object);
    let allowed = operation.judge(Class::Privilege, object, OwnEntry::default(), USE);
    if !allowed && matches!(privilege, Privilege::Mount | Privilege::Chroot) && operation.passes_in_audit() {
        // With another root or other mounts the monitor's files have other names.
        operation.becomes_builtin(Builtin::Monitor);
    }
    allowed
}

/// The same for a privilege over the process of `target`, which the record names.
#[inline(always)]
pub fn judge_over(operation: &mut Operation<'_>, privilege: Privilege, target: Kernel) {
    operation.scratch.header.value = process(target).into();
    judge(operation, privilege);
}

/// `S_ISUID`, `S_ISGID` (`include/uapi/linux/stat.h`).
const SET_ID_BITS: u32 = 0o6000;

/// Judges besides, where what was noted is allowed, whether the agent may make a file with this mode.
#[inline(always)]
pub fn judge_mode(operation: &mut Operation<'_>, mode: u32) {
    if mode & SET_ID_BITS != 0 && reload(&operation.scratch.header.reason) == Reason::AllowRule as u8 {
        judge(operation, Privilege::SetIdBits);
    }
}

/// A hook that judges a privilege and nothing else.
#[inline(always)]
pub fn power(hook: HookId, previous: i32, privilege: Privilege) -> i32 {
    guard(
        hook,
        Class::Privilege,
        previous,
        #[inline(always)]
        |operation| {
            judge(operation, privilege);
            true
        },
    )
}

macro_rules! powers {
    ($($name:literal $function:ident $id:ident($parameters:literal) $privilege:ident;)+) => {
        $(
            #[lsm(hook = $name)]
            fn $function(ctx: LsmContext) -> i32 {
                power(HookId::$id, ctx.arg($parameters), Privilege::$privilege)
            }
        )+
    };
}

powers! {
    "sb_pivotroot" sb_pivotroot SbPivotroot(2) Mount;
    "path_chroot" path_chroot PathChroot(1) Chroot;
    "userns_create" userns_create UsernsCreate(1) UserNamespace;
    "key_alloc" key_alloc KeyAlloc(3) Keyring;
    "kernel_module_request" kernel_module_request KernelModuleRequest(1) KernelModule;
    "settime" settime Settime(2) SetTime;
    "syslog" syslog Syslog(1) Syslog;
    "quotactl" quotactl Quotactl(4) Quota;
    "uring_cmd" uring_cmd UringCmd(1) IoUringCommand;
    "uring_allowed" uring_allowed UringAllowed(0) IoUring;
}

/// The hook is told neither the operation nor whose keyring will change, so the operation is read from the call.
#[lsm(hook = "key_permission")]
fn key_permission(ctx: LsmContext) -> i32 {
    // `arch/x86/entry/syscalls/syscall_{64,32}.tbl`, `include/uapi/linux/keyctl.h`
    const KEYCTL: u32 = 250;
    const KEYCTL_32: u32 = 288;
    const KEYCTL_SESSION_TO_PARENT: u32 = 18;
    guard(
        HookId::KeyPermission,
        Class::Privilege,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            judge(operation, Privilege::Keyring);
            if calls(KEYCTL, KEYCTL_32, KEYCTL_SESSION_TO_PARENT) {
                // The parent may be no agent: that of an agent's first process is none.
                operation.becomes_builtin(Builtin::OtherAgent);
            }
            true
        },
    )
}

/// The argument of a hook with this number, as a number.
// VERIFIER: the compiler makes one load at a chosen place of two loads at fixed ones, which is refused; of these it
// can't.
#[inline(always)]
fn number<const ARGUMENT: usize>(ctx: &LsmContext) -> i32 {
    let value: u64;
    // SAFETY: loads one argument; the verifier checks that the hook has it.
    unsafe {
        core::arch::asm!(
            "{value} = *(u64 *)({ctx} + {at})",
            value = out(reg) value,
            ctx = in(reg) ctx.as_ptr(),
            at = const ARGUMENT * 8,
        );
    }
    value as i32
}

macro_rules! powers_of_two_forms {
    ($($name:literal $function:ident $id:ident $constant:ident($one:literal, $other:literal) $power:ident;)+) => {
        $(
            /// How many parameters the running kernel's hook has; the loader writes it. Before that it is no number that
            /// the programs use: the compiler gives a constant of the same value the same place, and the loader would
            /// change that one, too.
            #[unsafe(no_mangle)]
            static $constant: u32 = MISSING;

            #[lsm(hook = $name)]
            fn $function(ctx: LsmContext) -> i32 {
                // SAFETY: reads a static; volatile because the loader overwrites it, which the compiler can't know.
                let parameters = unsafe { core::ptr::read_volatile(&raw const $constant) };
                // What an earlier program returned comes after the parameters.
                let previous = if parameters == $one { number::<$one>(&ctx) } else { number::<$other>(&ctx) };
                $power(&ctx, previous)
            }
        )+
    };
}

powers_of_two_forms! {
    "bpf" bpf Bpf BPF_PARAMETERS(3, 4) bpf_command;
    "perf_event_open" perf_event_open PerfEventOpen PERF_EVENT_OPEN_PARAMETERS(1, 2) perf_event;
}

#[inline(always)]
fn perf_event(_: &LsmContext, previous: i32) -> i32 {
    power(HookId::PerfEventOpen, previous, Privilege::PerfEvents)
}

/// A command of bpf(2). By the number or the pin of a program, map or link of somebody else, the monitor's could be had and
/// changed: no policy grants that.
#[inline(always)]
fn bpf_command(ctx: &LsmContext, previous: i32) -> i32 {
    // `enum bpf_cmd` in `include/uapi/linux/bpf.h`
    const BPF_OBJ_GET: i32 = 7;
    const BPF_PROG_GET_FD_BY_ID: i32 = 13;
    const BPF_MAP_GET_FD_BY_ID: i32 = 14;
    const BPF_LINK_GET_FD_BY_ID: i32 = 30;
    guard(
        HookId::Bpf,
        Class::Privilege,
        previous,
        #[inline(always)]
        |operation| {
            let others = matches!(
                number::<0>(ctx),
                BPF_OBJ_GET | BPF_PROG_GET_FD_BY_ID | BPF_MAP_GET_FD_BY_ID | BPF_LINK_GET_FD_BY_ID
            );
            judge(operation, Privilege::Bpf);
            if others {
                operation.becomes_builtin(Builtin::Monitor);
            }
            true
        },
    )
}
