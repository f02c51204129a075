//! Exec, once for each stage: a script, then its interpreter. Judged on the file that the kernel executes, never on the
//! name that the caller gave.

use super::file_open::file_text;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "bprm_check_security")]
fn bprm_check_security(ctx: LsmContext) -> i32 {
    guard(
        HookId::BprmCheckSecurity,
        Class::Exec,
        ctx.arg(1),
        #[inline(always)]
        |operation| {
            let bprm: Kernel = ctx.arg(0);
            let file: Kernel = load(bprm, &kernel::BPRM_FILE);
            let found = file_text(operation, file, load(file, &kernel::FILE_F_INODE));
            operation.judge_found_path(Class::Exec, found, USE);
            true
        },
    )
}
