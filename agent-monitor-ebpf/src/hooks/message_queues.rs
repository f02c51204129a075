//! POSIX message queues: made and removed by name, by calls that meet no hook on paths (`do_mq_open()` and
//! `sys_mq_unlink()` in `ipc/mqueue.c`). Opening one meets `file_open`.
//!
//! A queue is a file of a file system of its own. Where that is mounted, its path there is judged; where it is not, the
//! word `anon:other`, which is also what a queue is that `mq_open` opens.

use crate::kernel::{self, load};
use crate::mounts::judge_file;
use crate::operation::{Operation, earlier, guard};
use crate::path::{MQUEUE, Named, nameless_text};
use crate::scratch::reload;
use agent_monitor_common::class::{Class, Fault, Reason, file};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "inode_create")]
fn inode_create(ctx: LsmContext) -> i32 {
    named(HookId::InodeCreate, ctx.arg(3), ctx.arg(1), file::CREATE)
}

#[lsm(hook = "inode_unlink")]
fn inode_unlink(ctx: LsmContext) -> i32 {
    named(HookId::InodeUnlink, ctx.arg(2), ctx.arg(1), file::DELETE)
}

/// Judges `access` to the name of the `struct dentry` at an address, if it is a queue's.
#[inline(always)]
fn named(hook: HookId, previous: i32, dentry: kernel::Kernel, access: u16) -> i32 {
    let superblock: kernel::Kernel = load(dentry, &kernel::DENTRY_SB);
    if load::<u64>(superblock, &kernel::SUPER_MAGIC) != MQUEUE {
        return earlier(previous);
    }
    guard(
        hook,
        Class::File,
        previous,
        #[inline(always)]
        |operation| {
            judge_file(operation, dentry as u64, access);
            if is_unmounted(operation) {
                let object = nameless_text(operation.scratch.object(), Named::Other);
                let object = operation.set_object(object);
                operation.judge(Class::File, object, OwnEntry::default(), access);
            }
            true
        },
    )
}

/// Whether no mount shows the queue.
#[inline(always)]
fn is_unmounted(operation: &mut Operation<'_>) -> bool {
    reload(&operation.scratch.header.reason) == Reason::Fault as u8
        && reload(&operation.scratch.header.detail) == Fault::PathUnreachable as u8
}
