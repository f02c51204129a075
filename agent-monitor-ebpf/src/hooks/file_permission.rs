//! Reads and writes by descriptor, of what may have been opened by somebody else: files of cgroups, by which a task
//! leaves its own, and sockets where no other hook sees it, which is splice, and before 6.5 sendfile, too. And fallocate(2),
//! which can empty and shorten a file as truncation does.
//!
//! Every task's every read and write comes here, so what concerns nobody leaves at the type of the file, before the gate.

use super::file_open::judge_open;
use super::file_truncate::judge_write;
use super::{CGROUP_MAGIC, CGROUP2_MAGIC, S_IFSOCK, is_type, on_magic};
use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use crate::task::{is_worker, system_call};
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/fs.h`
const MAY_WRITE: u32 = 2;
// `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`. Among the numbers of each other's table are membarrier, which
// writes to no file, and none.
const FALLOCATE: u32 = 285;
const FALLOCATE_FOREIGN: u32 = 324;

#[lsm(hook = "file_permission")]
fn file_permission(ctx: LsmContext) -> i32 {
    let used: Kernel = ctx.arg(0);
    let inode: Kernel = load(used, &kernel::FILE_F_INODE);
    if is_type(inode, S_IFSOCK) {
        return socket(&ctx, used);
    }
    let mask: u32 = ctx.arg(1);
    if mask & MAY_WRITE == 0 {
        return earlier(ctx.arg(2));
    }
    let superblock: Kernel = load(inode, &kernel::INODE_SB);
    let magic: u64 = load(superblock, &kernel::SUPER_MAGIC);
    if magic != CGROUP2_MAGIC && magic != CGROUP_MAGIC {
        if matches!(system_call(), FALLOCATE | FALLOCATE_FOREIGN) {
            return guard(
                HookId::FilePermission,
                Class::File,
                ctx.arg(2),
                #[inline(always)]
                |operation| judge_write(operation, ctx.arg(0)),
            );
        }
        return earlier(ctx.arg(2));
    }
    guard(
        HookId::FilePermission,
        Class::File,
        ctx.arg(2),
        #[inline(always)]
        |operation| {
            judge_open(operation, ctx.arg(0), file::WRITE);
            on_magic(operation, magic);
            true
        },
    )
}

#[inline(always)]
fn socket(ctx: &LsmContext, used: Kernel) -> i32 {
    // read, write, readv, writev: `socket_recvmsg` and `socket_sendmsg` see them.
    if matches!(system_call(), 0 | 1 | 19 | 20) && !is_worker() {
        return earlier(ctx.arg(2));
    }
    // SAFETY: takes a file that the verifier tracks, and gives its socket or NULL.
    let socket = unsafe { bpf_sock_from_file(used.cast_mut().cast()) } as Kernel;
    if socket.is_null() {
        return earlier(ctx.arg(2));
    }
    let sk: Kernel = load(socket, &kernel::SOCKET_SK);
    if sk.is_null() {
        return earlier(ctx.arg(2));
    }
    let family: u16 = load(sk, &kernel::SOCK_FAMILY);
    guard(
        HookId::FilePermission,
        Class::Network,
        ctx.arg(2),
        #[inline(always)]
        |operation| operation.judge_peer(sk, family, ctx.arg::<u32>(1) & MAY_WRITE != 0),
    )
}
