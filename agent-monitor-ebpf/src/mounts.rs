//! Names of a file of which a hook gives the dentry without its mount (`inode_*` hooks): one for each mount of the file
//! system in the task's mount namespace that shows the dentry.
//!
//! What these hooks judge belongs to the file and not to a name (times, attributes), and a task may use any of the names
//! that it can reach. So the operation is allowed if some name is and a rule denies none of them; where it is not, the
//! record tells of one that was denied.

use crate::kernel::{self, load, offset, read};
use crate::operation::Operation;
use crate::path::{Named, Place, internal_file_system, nameless_text, walk, was_removed};
use crate::scratch::{clear, reload};
use crate::task::current;
use agent_monitor_common::class::{Class, Fault, Reason, file};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::field::MISSING;
use agent_monitor_common::limit::MOUNTS;
use aya_ebpf::helpers::generated::bpf_loop;

/// `include/linux/mount.h`: nothing is written by way of the mount.
const MNT_READONLY: u32 = 0x40;

/// What a search through mounts found, in the scratch buffer because callbacks change it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// The mount namespace whose mounts are looked for.
    namespace: u64,
    /// Where the list of the file system's mounts is.
    list: u64,
    /// The next element of the list: address of a `struct mount`, or of its list node before 6.18; 0 at the end.
    next: u64,
    /// The `struct vfsmount` that the search is at; 0 for one of another namespace.
    pub mount: u64,
    /// Not 0 once a name was allowed.
    allowed: u64,
    /// A `struct vfsmount` by which the name was denied, or 0.
    denied: u64,
    /// Not 0 once a rule, and not the lack of one, denied a name: `denied` is its mount. Of two names: once the new one
    /// has more rights.
    pub refused: u64,
    /// Not 0 once the list was seen to its end.
    pub ended: u64,
}

impl Found {
    /// Begins with the mounts of the `struct super_block` at an address, in the running task's namespace.
    #[inline(always)]
    pub fn start(&mut self, superblock: u64) {
        let spaces: kernel::Kernel = load(current(), &kernel::TASK_NSPROXY);
        clear([&mut self.mount, &mut self.allowed, &mut self.denied, &mut self.refused, &mut self.ended]);
        self.namespace = load(spaces, &kernel::NSPROXY_MOUNTS);
        self.list = superblock + offset(&kernel::SUPER_MOUNTS) as u64;
        self.next = read(self.list);
    }

    /// Goes to the next mount; `false` where there is none.
    #[inline(always)]
    pub fn advance(&mut self) -> bool {
        let next = self.next;
        let mount = if offset(&kernel::MOUNT_INSTANCE) == MISSING as usize {
            if next == 0 {
                self.ended = 1;
                return false;
            }
            self.next = read(next + offset(&kernel::MOUNT_NEXT) as u64);
            next
        } else {
            if next == self.list {
                self.ended = 1;
                return false;
            }
            if next == 0 {
                // An element that was taken off the list while it was read.
                return false;
            }
            self.next = read(next);
            next.wrapping_sub(offset(&kernel::MOUNT_INSTANCE) as u64)
        };
        let namespace: u64 = read(mount + offset(&kernel::MOUNT_NS) as u64);
        self.mount = if namespace == self.namespace { mount + offset(&kernel::MOUNT_MNT) as u64 } else { 0 };
        true
    }
}

/// What a step of the search for a file's names needs; on the stack of the program that loops.
#[repr(C)]
struct Search<'s> {
    operation: *mut Operation<'s>,
    dentry: u64,
    access: u64,
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
    operation.scratch.found.start(superblock);
    let mut search = Search { operation: &raw mut *operation, dentry, access: access.into() };
    // SAFETY: the callback gets the address of `search`, which lives until the helper returns.
    unsafe { bpf_loop(MOUNTS, step as *const () as *mut _, (&raw mut search).cast(), 0) };
    let found = &operation.scratch.found;
    let (refused, denied) = (reload(&found.refused), reload(&found.denied));
    let (allowed, ended) = (reload(&found.allowed), reload(&found.ended));
    if refused == 0 && ended == 0 {
        operation.fault(Class::File, access, Fault::PathUnreadable);
        return;
    }
    if refused == 0 && allowed != 0 {
        operation.note(Class::File, access, Reason::AllowRule, 0);
        return;
    }
    if denied == 0 {
        operation.fault(Class::File, access, Fault::PathUnreachable);
        return;
    }
    operation.judge_place(Place { mount: denied, dentry }, access);
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
    if !operation.scratch.found.advance() {
        return 1;
    }
    let place = Place { mount: operation.scratch.found.mount, dentry: search.dentry };
    if place.mount == 0 {
        return 0;
    }
    if search.access != u64::from(file::READ) {
        let flags: u32 = read(place.mount + offset(&kernel::VFSMOUNT_FLAGS) as u64);
        if flags & MNT_READONLY != 0 {
            // Nothing is changed by this name (`mnt_want_write()` comes before the hooks).
            return 0;
        }
    }
    let Ok(name) = walk(operation.scratch.new_object(), place) else {
        // Not below this mount's top, or below no root of this task.
        return 0;
    };
    if operation.judge(Class::File, name, OwnEntry::default(), search.access as u16) {
        operation.scratch.found.allowed = 1;
        return 0;
    }
    operation.scratch.found.denied = place.mount;
    if reload(&operation.scratch.header.reason) == Reason::NoRule as u8 {
        return 0;
    }
    operation.scratch.found.refused = 1;
    1
}
