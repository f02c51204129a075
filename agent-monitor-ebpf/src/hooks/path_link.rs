//! Creation of hard links: `link` on both names, `create` on the new one, which may have no more rights than the old.

use super::on_file_system;
use crate::kernel::{self, Kernel, address, read};
use crate::operation::{Operation, Outcome, guard};
use crate::path::{Place, anonymous, place_in, removed, walk};
use agent_monitor_common::class::{Builtin, Class, Fault, file};
use agent_monitor_common::decide::{OwnEntry, more_rights};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::anonymous::DELETED;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "path_link")]
fn path_link(ctx: LsmContext) -> i32 {
    guard(HookId::PathLink, Class::File, ctx.arg(3), |operation| {
        let outcome = judge(operation, ctx.arg(0), ctx.arg(1), ctx.arg(2))
            .unwrap_or_else(|fault| Outcome::fault(Class::File, file::LINK | file::CREATE, fault));
        Some(on_file_system(outcome, ctx.arg(2)))
    })
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, old: Kernel, directory: Kernel, new: Kernel) -> Result<Outcome, Fault> {
    // A link never crosses mounts, so the old name is in the mount of the new one.
    let mount = read(address(directory, &kernel::PATH_MNT)).ok_or(Fault::PathUnreadable)?;
    let from = if removed(old) {
        anonymous(&mut operation.scratch.object, DELETED)
    } else {
        walk(&mut operation.scratch.object, Place { mount, dentry: old as u64 })?
    };
    let to = walk(&mut operation.scratch.new_object, place_in(directory, new).ok_or(Fault::PathUnreadable)?)?;
    let judged = operation.judge(Class::File, from, OwnEntry::default(), file::LINK);
    let judged = if judged.allowed() {
        operation.judge(Class::File, to, OwnEntry::default(), file::LINK | file::CREATE)
    } else {
        judged
    };
    let judged = if judged.allowed() && more_rights(&operation.image, &from, &to, false) {
        Outcome::builtin(Class::File, 0, Builtin::MoreRights, None)
    } else {
        judged
    };
    Ok(Outcome { access: file::LINK | file::CREATE, object: Some(from), new_object: Some(to), ..judged })
}
