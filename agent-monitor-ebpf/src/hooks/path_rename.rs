//! Renames: `rename` on both names, `delete` on a name that is replaced; the new name may have no more rights than the
//! old one, and below a directory nothing may change. An exchange counts both ways.

use super::on_file_system;
use crate::kernel::{self, Kernel, load};
use crate::operation::{Operation, Outcome, guard};
use crate::path::{place_in, walk};
use agent_monitor_common::class::{Builtin, Class, Fault, file};
use agent_monitor_common::decide::{OwnEntry, more_rights};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

const RENAME_EXCHANGE: u32 = 2;
const S_IFMT: u16 = 0o170_000;
const S_IFDIR: u16 = 0o040_000;

#[lsm(hook = "path_rename")]
fn path_rename(ctx: LsmContext) -> i32 {
    guard(HookId::PathRename, Class::File, ctx.arg(5), |operation| {
        let outcome = judge(operation, (ctx.arg(0), ctx.arg(1)), (ctx.arg(2), ctx.arg(3)), ctx.arg(4))
            .unwrap_or_else(|fault| Outcome::fault(Class::File, file::RENAME, fault));
        Some(on_file_system(outcome, ctx.arg(1)))
    })
}

#[inline(always)]
fn judge(
    operation: &mut Operation<'_>,
    old: (Kernel, Kernel),
    new: (Kernel, Kernel),
    flags: u32,
) -> Result<Outcome, Fault> {
    let from = walk(&mut operation.scratch.object, place_in(old.0, old.1).ok_or(Fault::PathUnreadable)?)?;
    let to = walk(&mut operation.scratch.new_object, place_in(new.0, new.1).ok_or(Fault::PathUnreadable)?)?;
    let exchange = flags & RENAME_EXCHANGE != 0;
    let replaced: u64 = load(new.1, &kernel::DENTRY_INODE);
    let access = if replaced != 0 && !exchange { file::RENAME | file::DELETE } else { file::RENAME };
    let judged = operation.judge(Class::File, from, OwnEntry::default(), file::RENAME);
    let judged = if judged.allowed() {
        operation.judge(Class::File, to, OwnEntry::default(), access)
    } else {
        judged
    };
    let gains = judged.allowed()
        && (more_rights(&operation.image, &from, &to, is_directory(old.1))
            || exchange && more_rights(&operation.image, &to, &from, is_directory(new.1)));
    let judged = if gains { Outcome::builtin(Class::File, 0, Builtin::MoreRights, None) } else { judged };
    Ok(Outcome { access, object: Some(from), new_object: Some(to), ..judged })
}

/// Whether an existing name is a directory's.
#[inline(always)]
fn is_directory(dentry: Kernel) -> bool {
    let inode: Kernel = load(dentry, &kernel::DENTRY_INODE);
    load::<u16>(inode, &kernel::INODE_MODE) & S_IFMT == S_IFDIR
}
