//! Creation of a process in another cgroup: `clone3(CLONE_INTO_CGROUP)` works with an O_PATH descriptor, which no hook
//! sees opened, so this is the only place to deny it.

use crate::operation::{earlier, guard_builtin};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/uapi/linux/sched.h`
const CLONE_INTO_CGROUP: u64 = 1 << 33;

#[lsm(hook = "task_alloc")]
fn task_alloc(ctx: LsmContext) -> i32 {
    let flags: u64 = ctx.arg(1);
    if flags & CLONE_INTO_CGROUP == 0 {
        return earlier(ctx.arg(2));
    }
    guard_builtin(HookId::TaskAlloc, Class::Privilege, ctx.arg(2), USE, Builtin::LeaveCgroup)
}
