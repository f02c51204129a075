//! Use of a capability, in any user namespace; and of the privileges that have no hook of their own.

use super::power;
use crate::kernel::{self, load};
use crate::operation::{Operation, guard};
use crate::path::operand;
use crate::task::{acts_for_others, calls, current, system_call};
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "capable")]
fn capable(ctx: LsmContext) -> i32 {
    let options: u32 = ctx.arg(3);
    guard(
        HookId::Capable,
        Class::Capability,
        ctx.arg(4),
        #[inline(always)]
        |operation| {
            let asked: u64 = ctx.arg(0);
            if acts_for_others() && asked == load::<u64>(current(), &kernel::TASK_CRED) {
                return false;
            }
            let capability: u32 = ctx.arg(2);
            let object = operand(operation.scratch.object(), [capability as u8]);
            let object = operation.set_object(object);
            operation.scratch.silent = (options & CAP_OPT_NOAUDIT != 0 && !confines_itself()).into();
            if operation.judge(Class::Capability, object, OwnEntry::default(), USE) {
                match capability {
                    CAP_SYS_RAWIO => drop(power::judge(operation, Privilege::RawIo)),
                    CAP_SYS_TIME => drop(power::judge(operation, Privilege::SetTime)),
                    CAP_SYS_BOOT if !loads_a_kernel(system_call()) => drop(power::judge(operation, Privilege::Reboot)),
                    CAP_SYS_ADMIN => administer(operation, system_call()),
                    _ => {}
                }
            } else if capability == CAP_SYS_ADMIN && operation.passes_in_audit() && is_about_mounts(system_call()) {
                power::judge(operation, Privilege::Mount);
            }
            true
        },
    )
}

/// Judges the system calls for which CAP_SYS_ADMIN is the only gate, by their numbers in
/// `arch/x86/entry/syscalls/syscall_{64,32}.tbl`. A number of the 32-bit ABI means a call that does not ask for
/// CAP_SYS_ADMIN natively, and the other way round, so the ABI need not be known.
#[inline(always)]
fn administer(operation: &mut Operation<'_>, call: u32) {
    match call {
        // swapon and swapoff; by the 32-bit ABI.
        167 | 168 | 87 | 115 => drop(power::judge(operation, Privilege::Swap)),
        call if is_about_mounts(call) => drop(power::judge(operation, Privilege::Mount)),
        _ => {}
    }
}

/// Whether a system call is open_tree, fsopen, fsconfig, fsmount, fspick, mount_setattr or open_tree_attr, which have one
/// number in every ABI.
#[inline(always)]
fn is_about_mounts(call: u32) -> bool {
    matches!(call, 428 | 430..=433 | 442 | 467)
}

/// Whether a system call is kexec_load or kexec_file_load, which have hooks of their own. What else asks for CAP_SYS_BOOT
/// is reboot, and kexec_load by the 32-bit ABI.
#[inline(always)]
fn loads_a_kernel(call: u32) -> bool {
    call == 246 || call == 320
}

// `include/uapi/linux/capability.h`
const CAP_SYS_RAWIO: u32 = 17;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_BOOT: u32 = 22;
const CAP_SYS_TIME: u32 = 25;

/// `include/linux/security.h`: the kernel only looks whether it could; nothing is refused to the caller, but for who
/// [confines itself](confines_itself).
const CAP_OPT_NOAUDIT: u32 = 1 << 1;

/// Whether a task takes on a filter for system calls or a domain of Landlock, which the kernel refuses without
/// CAP_SYS_ADMIN or `no_new_privs` though it asks as if it only looked (`seccomp_prepare_filter()` in `kernel/seccomp.c`,
/// `landlock_restrict_self()` in `security/landlock/syscalls.c`).
#[inline(always)]
fn confines_itself() -> bool {
    // seccomp, by the 32-bit ABI too; landlock_restrict_self; prctl(PR_SET_SECCOMP).
    matches!(system_call(), 317 | 354 | 446) || calls(157, 172, 22)
}
