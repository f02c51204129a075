//! Creation of hard links: `link` on both names, `create` on the new one, which may have no more rights than the old.

use super::on_file_system;
use crate::kernel::{self, Kernel, address, load, read};
use crate::more_rights::{Pair, compare};
use crate::operation::{Operation, guard};
use crate::path::{Named, Place, nameless_text, place_in, removed, walk};
use agent_monitor_common::class::{Class, Fault, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

const ACCESS: u16 = file::LINK | file::CREATE;

#[lsm(hook = "path_link")]
fn path_link(ctx: LsmContext) -> i32 {
    guard(
        HookId::PathLink,
        Class::File,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let new: Kernel = ctx.arg(2);
            if let Err(fault) = judge(operation, ctx.arg(0), ctx.arg(1), new) {
                operation.fault(Class::File, ACCESS, fault);
            }
            operation.scratch.header.access = ACCESS;
            on_file_system(operation, load(new, &kernel::DENTRY_SB));
            true
        },
    )
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, old: Kernel, directory: Kernel, new: Kernel) -> Result<(), Fault> {
    let from = if removed(old) {
        nameless_text(operation.scratch.object(), Named::Deleted)
    } else {
        // A link never crosses mounts, so the old name is in the mount of the new one.
        let mount = read(address(directory, &kernel::PATH_MNT));
        walk(operation.scratch.object(), Place { mount, dentry: old as u64 })?
    };
    let from = operation.set_object(from);
    let to = walk(operation.scratch.new_object(), place_in(directory, new))?;
    let to = operation.set_new_object(to);
    operation.judge_names(from, file::LINK, to, ACCESS);
    let superblock = load::<u64>(new, &kernel::DENTRY_SB);
    let mount = place_in(directory, new).mount;
    let old = if removed(old) { 0 } else { old as u64 };
    compare(operation, Pair { old, new: new as u64, superblock, mount, directory: 0 });
    Ok(())
}
