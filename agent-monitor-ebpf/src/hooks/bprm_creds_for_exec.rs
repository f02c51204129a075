//! Exec without a filter for system calls, under a policy that has rules for them: a process that `run` did not start would
//! make any call.

use super::file_open::file_text;
use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use crate::task::current;
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::image::{ReadImage, at, syscalls};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/uapi/linux/seccomp.h`
const SECCOMP_MODE_FILTER: u32 = 2;

#[lsm(hook = "bprm_creds_for_exec")]
fn bprm_creds_for_exec(ctx: LsmContext) -> i32 {
    let mode: u32 = load(current(), &kernel::TASK_SECCOMP_MODE);
    if mode == SECCOMP_MODE_FILTER {
        return earlier(ctx.arg(1));
    }
    guard(
        HookId::BprmCredsForExec,
        Class::Exec,
        ctx.arg(1),
        #[inline(always)]
        |operation| {
            if operation.image.word(at::SYSCALLS) & syscalls::RULES == 0 {
                return false;
            }
            let bprm: Kernel = ctx.arg(0);
            let file: Kernel = load(bprm, &kernel::BPRM_FILE);
            // Denied whatever it is: where it has no name that can be read, the record has none.
            let _ = file_text(operation, file, load(file, &kernel::FILE_F_INODE));
            operation.builtin(Class::Exec, USE, Builtin::NoSyscallFilter);
            true
        },
    )
}
