//! Renames: `rename` on both names, `delete` on a name that is replaced; the new name may have no more rights than the
//! old one, and below a directory nothing may change. An exchange counts both ways.

use super::{S_IFDIR, is_type, on_file_system};
use crate::kernel::{self, Kernel, load};
use crate::more_rights::{Pair, compare};
use crate::operation::{Operation, guard};
use crate::path::{place_in, walk};
use agent_monitor_common::class::{Class, Fault, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/linux/fs.h`
const RENAME_EXCHANGE: u32 = 2;
/// Leaves a node of its own under the old name.
const RENAME_WHITEOUT: u32 = 4;

#[lsm(hook = "path_rename")]
fn path_rename(ctx: LsmContext) -> i32 {
    guard(
        HookId::PathRename,
        Class::File,
        ctx.arg(5),
        #[inline(always)]
        |operation| {
            let (old, new): (Kernel, Kernel) = (ctx.arg(1), ctx.arg(3));
            let flags: u32 = ctx.arg(4);
            let exchange = flags & RENAME_EXCHANGE != 0;
            let replaced: u64 = load(new, &kernel::DENTRY_INODE);
            let access = if replaced != 0 && !exchange { file::RENAME | file::DELETE } else { file::RENAME };
            let old_access = if flags & RENAME_WHITEOUT != 0 { file::RENAME | file::CREATE } else { file::RENAME };
            let (old_directory, new_directory) = (ctx.arg(0), ctx.arg(2));
            let names = Names { old_directory, old, new_directory, new, exchange, old_access, access };
            if let Err(fault) = judge(operation, &names) {
                operation.fault(Class::File, access, fault);
            }
            operation.scratch.header.access = access | old_access;
            on_file_system(operation, load(old, &kernel::DENTRY_SB));
            true
        },
    )
}

/// The hook's arguments.
struct Names {
    old_directory: Kernel,
    old: Kernel,
    new_directory: Kernel,
    new: Kernel,
    exchange: bool,
    old_access: u16,
    access: u16,
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, names: &Names) -> Result<(), Fault> {
    let from = walk(operation.scratch.object(), place_in(names.old_directory, names.old))?;
    let from = operation.set_object(from);
    let to = walk(operation.scratch.new_object(), place_in(names.new_directory, names.new))?;
    let to = operation.set_new_object(to);
    operation.judge_names(from, names.old_access, to, names.access);
    let (old, new) = (names.old as u64, names.new as u64);
    let mut pair = Pair {
        old,
        new,
        superblock: load::<u64>(names.old, &kernel::DENTRY_SB),
        mount: place_in(names.old_directory, names.old).mount,
        directory: is_directory(names.old).into(),
    };
    compare(operation, pair);
    if names.exchange {
        pair = Pair { old: new, new: old, directory: is_directory(names.new).into(), ..pair };
        compare(operation, pair);
    }
    Ok(())
}

/// Whether an existing name is a directory's.
#[inline(always)]
pub fn is_directory(dentry: Kernel) -> bool {
    let inode: Kernel = load(dentry, &kernel::DENTRY_INODE);
    // VERIFIER: the newest kernels know that it may be NULL.
    !inode.is_null() && is_type(inode, S_IFDIR)
}
