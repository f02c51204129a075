//! Descriptors that come from elsewhere: by a message on a unix socket, or taken from another process. Judged like an
//! open with the rights that the descriptor has; what it refers to was opened by somebody with other rights.

use super::file_open::{access_of, file_text};
use super::on_file_system;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::scratch::reload;
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/fs.h`: opened with O_PATH, which gives no right to the contents; what is made of it is judged then.
const FMODE_PATH: u32 = 1 << 14;

#[lsm(hook = "file_receive")]
fn file_receive(ctx: LsmContext) -> i32 {
    guard(
        HookId::FileReceive,
        Class::File,
        ctx.arg(1),
        #[inline(always)]
        |operation| {
            let received: Kernel = ctx.arg(0);
            let mode: u32 = load(received, &kernel::FILE_F_MODE);
            if mode & FMODE_PATH != 0 {
                return false;
            }
            operation.scratch.header.access = access_of(mode);
            let inode: Kernel = load(received, &kernel::FILE_F_INODE);
            let found = file_text(operation, received, inode);
            let access = reload(&operation.scratch.header.access);
            operation.judge_found_path(Class::File, found, access);
            if access & file::WRITE != 0 {
                on_file_system(operation, load(inode, &kernel::INODE_SB));
            }
            true
        },
    )
}
