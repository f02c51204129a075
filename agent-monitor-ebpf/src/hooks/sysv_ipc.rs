//! System V memory, message queues and semaphores. The kernel knows which user made one, not which agent: that is noted
//! where they are made, and judged where they are used. An agent's own need no rule.

use super::power;
use crate::gate::{self, Gate};
use crate::kernel::read;
use crate::maps::IPC_OBJECTS;
use crate::operation::{earlier, guard};
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "shm_alloc_security")]
fn shm_alloc_security(ctx: LsmContext) -> i32 {
    made(&ctx)
}

#[lsm(hook = "msg_queue_alloc_security")]
fn msg_queue_alloc_security(ctx: LsmContext) -> i32 {
    made(&ctx)
}

#[lsm(hook = "sem_alloc_security")]
fn sem_alloc_security(ctx: LsmContext) -> i32 {
    made(&ctx)
}

#[lsm(hook = "shm_free_security")]
fn shm_free_security(ctx: LsmContext) -> i32 {
    gone(&ctx)
}

#[lsm(hook = "msg_queue_free_security")]
fn msg_queue_free_security(ctx: LsmContext) -> i32 {
    gone(&ctx)
}

#[lsm(hook = "sem_free_security")]
fn sem_free_security(ctx: LsmContext) -> i32 {
    gone(&ctx)
}

#[lsm(hook = "ipc_permission")]
fn ipc_permission(ctx: LsmContext) -> i32 {
    used(&ctx, HookId::IpcPermission)
}

#[lsm(hook = "shm_shmctl")]
fn shm_shmctl(ctx: LsmContext) -> i32 {
    used(&ctx, HookId::ShmShmctl)
}

#[lsm(hook = "msg_queue_msgctl")]
fn msg_queue_msgctl(ctx: LsmContext) -> i32 {
    used(&ctx, HookId::MsgQueueMsgctl)
}

#[lsm(hook = "sem_semctl")]
fn sem_semctl(ctx: LsmContext) -> i32 {
    used(&ctx, HookId::SemSemctl)
}

/// The address of the object, the first argument of all hooks here, as a number: it is NULL where a call asks about all
/// objects (IPC_INFO), which the verifier does not know.
#[inline(always)]
fn object(ctx: &LsmContext) -> u64 {
    read(ctx.as_ptr() as u64)
}

/// Notes whose a new object is. Where there is no room it is nobody's, and so no agent may use it.
// VERIFIER: 6.18 mixes what it knew of the register with what it learns where a program reads what an earlier one
// returned (`check_mem_access()`, the case of `is_retval`), and warns of itself where they do not go together. So that is
// read first, into a register that nothing is known of.
#[inline(always)]
fn made(ctx: &LsmContext) -> i32 {
    let previous: i32 = ctx.arg(1);
    if previous != 0 {
        return earlier(previous);
    }
    if let Gate::Agent(binding, _) = gate::enter() {
        let _ = IPC_OBJECTS.insert(object(ctx), binding.agent, 0);
    }
    0
}

/// Forgets an object, whose address another one may get.
#[inline(always)]
fn gone(ctx: &LsmContext) -> i32 {
    let _ = IPC_OBJECTS.remove(object(ctx));
    0
}

/// Judges the use of an object that is not the agent's.
#[inline(always)]
fn used(ctx: &LsmContext, hook: HookId) -> i32 {
    guard(
        hook,
        Class::Privilege,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            let object = object(ctx);
            // SAFETY: the value is read at once.
            let own = unsafe { IPC_OBJECTS.get(object) }.is_some_and(|agent| *agent == operation.agent);
            if object == 0 || own {
                return false;
            }
            power::judge(operation, Privilege::IpcAny);
            true
        },
    )
}
