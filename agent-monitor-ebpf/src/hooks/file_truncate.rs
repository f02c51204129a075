//! Truncation by descriptor, from 6.2 on: the descriptor may have been opened before the binding.

use super::file_open::file_text;
use crate::kernel::{self, Kernel, load};
use crate::operation::{Operation, guard};
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
        |operation| judge_write(operation, ctx.arg(0)),
    )
}

/// Judges that an open file is written to by what no open has granted.
#[inline(always)]
pub fn judge_write(operation: &mut Operation<'_>, open: Kernel) -> bool {
    let inode: Kernel = load(open, &kernel::FILE_F_INODE);
    let superblock: u64 = load(inode, &kernel::INODE_SB);
    if matches!(internal_file_system(superblock), Some(Named::Memfd)) {
        // Memory is not judged where it is made and written.
        return false;
    }
    let found = file_text(operation, open, inode);
    operation.judge_found_path(Class::File, found, file::WRITE);
    true
}
