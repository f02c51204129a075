//! Exec of a program that gives rights: a set-user-id or set-group-id one, or one with capabilities. The kernel has worked
//! out the credentials when this hook runs, so what mounts, `no_new_privs` and namespaces ignore is no gain here either.

use super::power;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::task::current;
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "bprm_creds_from_file")]
fn bprm_creds_from_file(ctx: LsmContext) -> i32 {
    guard(
        HookId::BprmCredsFromFile,
        Class::Privilege,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let bprm: Kernel = ctx.arg(0);
            let (old, new): (Kernel, Kernel) = (load(current(), &kernel::TASK_CRED), load(bprm, &kernel::BPRM_CRED));
            let (user, group): (u32, u32) = (load(old, &kernel::CRED_EUID), load(old, &kernel::CRED_EGID));
            let (new_user, new_group): (u32, u32) = (load(new, &kernel::CRED_EUID), load(new, &kernel::CRED_EGID));
            let real: u32 = load(old, &kernel::CRED_UID);
            let (had, has): (u64, u64) = (load(old, &kernel::CRED_PERMITTED), load(new, &kernel::CRED_PERMITTED));
            // Each exec gives root back what its bounding set holds; no file does that.
            let gains = has & !had != 0 && user != 0 && real != 0;
            if user == new_user && group == new_group && !gains {
                return false;
            }
            power::judge(operation, Privilege::SetuidExec);
            true
        },
    )
}
