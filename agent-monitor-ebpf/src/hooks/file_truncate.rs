//! Truncation by descriptor, from 6.2 on: the descriptor may have been opened before the binding.

use super::file_open::file_text;
use crate::kernel::{self, Kernel, load};
use crate::operation::guard;
use crate::path::{Named, internal_file_system};
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "file_truncate")]
fn file_truncate(ctx: LsmContext) -> i32 {
    guard(
        HookId::FileTruncate,
        Class::File,
        ctx.arg(1),
        #[inline(always)]
        |operation| {
            let truncated: Kernel = ctx.arg(0);
            let inode: Kernel = load(truncated, &kernel::FILE_F_INODE);
            let superblock: u64 = load(inode, &kernel::INODE_SB);
            if matches!(internal_file_system(superblock), Some(Named::Memfd)) {
                // Memory is not judged where it is made and written.
                return false;
            }
            let found = file_text(operation, truncated, inode);
            operation.judge_found_path(Class::File, found, file::WRITE);
            true
        },
    )
}
