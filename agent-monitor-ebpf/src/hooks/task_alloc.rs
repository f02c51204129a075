//! Creation of a process in another cgroup: `clone3(CLONE_INTO_CGROUP)` works with an O_PATH descriptor, which no hook
//! sees opened, so this is the only place to deny it. And of one whose parent is the parent of its maker, somebody outside
//! who would be told of the end of a process that is none of its own.

use crate::kernel::{self, load};
use crate::operation::{earlier, guard};
use crate::task::{current, is_of_agent};
use agent_monitor_common::class::{Builtin, Class, USE};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/linux/sched.h`
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

#[lsm(hook = "task_alloc")]
fn task_alloc(ctx: LsmContext) -> i32 {
    let flags: u64 = ctx.arg(1);
    if flags & (CLONE_INTO_CGROUP | CLONE_PARENT) == 0 {
        return earlier(ctx.arg(2));
    }
    guard(
        HookId::TaskAlloc,
        Class::Privilege,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            if flags & CLONE_INTO_CGROUP != 0 {
                operation.builtin(Class::Privilege, USE, Builtin::LeaveCgroup);
                return true;
            }
            if is_of_agent(load(current(), &kernel::TASK_PARENT), operation.agent) {
                return false;
            }
            operation.builtin(Class::Privilege, USE, Builtin::OtherAgent);
            true
        },
    )
}
