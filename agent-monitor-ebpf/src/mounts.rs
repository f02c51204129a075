//! Names of a file of which a hook gives the dentry without its mount (`inode_*` hooks): one for each mount of the file
//! system in the task's mount namespace that shows the dentry.
//!
//! What these hooks judge belongs to the file and not to a name (times, attributes), and a task may use any of the names
//! that it can reach. So the operation is allowed if some name is; where none is, the record tells of one that was denied.

use crate::kernel::{self, load, offset, read};
use crate::operation::Operation;
use crate::path::{Named, Place, internal_file_system, nameless_text, walk, was_removed};
use crate::scratch::{clear, reload};
use crate::task::current;
use agent_monitor_common::class::{Class, Fault, Reason};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::field::MISSING;
use agent_monitor_common::limit::MOUNTS;
use aya_ebpf::helpers::generated::bpf_loop;

/// What a step of the search needs; on the stack of the program that loops.
#[repr(C)]
struct Search<'s> {
    operation: *mut Operation<'s>,
    dentry: u64,
    namespace: u64,
    superblock: u64,
    access: u64,
}

/// What the search found, in the scratch buffer because callbacks change it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// The next element of the list: address of a `struct mount`, or of its list node before 6.18; 0 at the end.
    pub next: u64,
    /// Not 0 once a name was allowed.
    pub allowed: u64,
    /// A `struct vfsmount` by which the name was denied, or 0.
    pub denied: u64,
    /// Not 0 once the list was seen to its end.
    pub ended: u64,
}

/// Judges `access` to the file of a `struct dentry` at an address.
#[inline(always)]
pub fn judge_file(operation: &mut Operation<'_>, dentry: u64, access: u16) {
    let superblock: u64 = read(dentry + offset(&kernel::DENTRY_SB) as u64);
    let named = if let Some(named) = internal_file_system(superblock) {
        named
    } else if was_removed(dentry) {
        Named::Deleted
    } else {
        Named::Path
    };
    if !matches!(named, Named::Path) {
        let object = nameless_text(operation.scratch.object(), named);
        let object = operation.set_object(object);
        operation.judge(Class::File, object, OwnEntry::default(), access);
        return;
    }
    let spaces: kernel::Kernel = load(current(), &kernel::TASK_NSPROXY);
    let head = superblock + offset(&kernel::SUPER_MOUNTS) as u64;
    let found = &mut operation.scratch.found;
    clear([&mut found.allowed, &mut found.denied, &mut found.ended]);
    found.next = read(head);
    let mut search = Search {
        operation: &raw mut *operation,
        dentry,
        namespace: load(spaces, &kernel::NSPROXY_MOUNTS),
        superblock: head,
        access: access.into(),
    };
    // SAFETY: the callback gets the address of `search`, which lives until the helper returns.
    unsafe { bpf_loop(MOUNTS, step as *const () as *mut _, (&raw mut search).cast(), 0) };
    let found = reload(&operation.scratch.found);
    if found.allowed != 0 {
        return;
    }
    if found.denied == 0 {
        let fault = if found.ended != 0 { Fault::PathUnreachable } else { Fault::PathUnreadable };
        operation.fault(Class::File, access, fault);
        return;
    }
    operation.judge_place(Place { mount: found.denied, dentry }, access);
    if reload(&operation.scratch.header.reason) == Reason::AllowRule as u8 {
        // The name has changed since it was denied.
        operation.fault(Class::File, access, Fault::PathUnreadable);
    }
}

/// One mount of the file system: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn step(_index: u32, search: *mut Search<'_>) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the operation is this program's own.
    let (search, operation) = unsafe { (&*search, &mut *(*search).operation) };
    let next = operation.scratch.found.next;
    let mount = if offset(&kernel::MOUNT_INSTANCE) == MISSING as usize {
        if next == 0 {
            operation.scratch.found.ended = 1;
            return 1;
        }
        operation.scratch.found.next = read(next + offset(&kernel::MOUNT_NEXT) as u64);
        next
    } else {
        if next == search.superblock {
            operation.scratch.found.ended = 1;
            return 1;
        }
        if next == 0 {
            // An element that was taken off the list while it was read.
            return 1;
        }
        operation.scratch.found.next = read(next);
        next.wrapping_sub(offset(&kernel::MOUNT_INSTANCE) as u64)
    };
    let namespace: u64 = read(mount + offset(&kernel::MOUNT_NS) as u64);
    if namespace != search.namespace {
        return 0;
    }
    let place = Place { mount: mount + offset(&kernel::MOUNT_MNT) as u64, dentry: search.dentry };
    let Ok(name) = walk(operation.scratch.new_object(), place) else {
        // Not below this mount's top, or below no root of this task.
        return 0;
    };
    if operation.judge(Class::File, name, OwnEntry::default(), search.access as u16) {
        operation.scratch.found.allowed = 1;
        return 1;
    }
    operation.scratch.found.denied = place.mount;
    0
}
