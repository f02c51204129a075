//! The rights that a rename or link gives: by the name in the mount that it uses, and by way of other mounts of the file
//! system, where the same name comes to be.

use crate::operation::Operation;
use crate::path::{Named, Place, nameless_text, walk};
use crate::scratch::reload;
use agent_monitor_common::class::{Builtin, Class, Fault, Reason};
use agent_monitor_common::decide::more_rights;
use agent_monitor_common::limit::MOUNTS;
use aya_ebpf::helpers::generated::bpf_loop;

/// Two names of one file system.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pair {
    /// The `struct dentry` of the old name; 0 for a file without one.
    pub old: u64,
    /// The `struct dentry` of the new name.
    pub new: u64,
    /// The `struct super_block`.
    pub superblock: u64,
    /// The `struct vfsmount` by which they are changed.
    pub mount: u64,
    /// Not 0 where the old name is a directory's.
    pub directory: u64,
}

/// Denies what was noted as allowed where the new name has more rights than the old one in a mount that the task can
/// reach. The record then tells of the names there.
#[inline(always)]
pub fn compare(operation: &mut Operation<'_>, pair: Pair) {
    if reload(&operation.scratch.header.reason) != Reason::AllowRule as u8 {
        return;
    }
    operation.scratch.found.start(pair.superblock);
    operation.scratch.pair = pair;
    // SAFETY: the callback gets the address of the operation, which lives until the helper returns.
    unsafe { bpf_loop(MOUNTS + 1, step as *const () as *mut _, (&raw mut *operation).cast(), 0) };
    if reload(&operation.scratch.found.refused) != 0 {
        operation.becomes_builtin(Builtin::MoreRights);
    } else if reload(&operation.scratch.found.ended) == 0 {
        let access = reload(&operation.scratch.header.access);
        operation.fault(Class::File, access, Fault::PathUnreadable);
    }
}

/// The mount that is used, then each of the file system: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn step(index: u32, operation: *mut Operation<'_>) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the operation is this program's own.
    let operation = unsafe { &mut *operation };
    let (old, used) = (operation.scratch.pair.old, operation.scratch.pair.mount);
    if index == 0 {
        operation.scratch.found.mount = used;
    } else {
        if !operation.scratch.found.advance() {
            return 1;
        }
        let mount = operation.scratch.found.mount;
        if mount == 0 || mount == used {
            return 0;
        }
    }
    let mount = reload(&operation.scratch.found.mount);
    let to = match walk(operation.scratch.new_object(), Place { mount, dentry: operation.scratch.pair.new }) {
        Ok(to) => to,
        // Not below this mount's top, or below no root of this task.
        Err(Fault::PathUnreachable) if index != 0 => return 0,
        Err(_) => return 1,
    };
    let to = operation.set_new_object(to);
    let from = if old == 0 {
        nameless_text(operation.scratch.object(), Named::Deleted)
    } else {
        // A file that comes into sight in this mount had the rights of its name in the other.
        let from = match walk(operation.scratch.object(), Place { mount, dentry: old }) {
            Err(Fault::PathUnreachable) => walk(operation.scratch.object(), Place { mount: used, dentry: old }),
            from => from,
        };
        let Ok(from) = from else {
            return 1;
        };
        from
    };
    let from = operation.set_object(from);
    if more_rights(&operation.image, &from, &to, operation.scratch.pair.directory != 0) {
        operation.scratch.found.refused = 1;
        return 1;
    }
    0
}
