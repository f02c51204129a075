//! One file a hook, or a family of hooks that differ in a constant. Each only translates arguments to an operation.

mod bprm_check_security;
mod capable;
mod cgroup_mkdir;
mod cgroup_release;
mod file_mprotect;
mod file_open;
mod mmap_file;
mod path_attributes;
mod path_create;
mod path_link;
mod path_remove;
mod path_rename;
mod ptrace_access_check;
mod sock_addr;
mod socket_bind;
mod socket_connect;
mod socket_create;
mod socket_listen;
mod socket_sendmsg;
mod task_alloc;
mod task_kill;
mod unix_peer;

use crate::kernel::{self, Kernel, load};
use crate::operation::Outcome;
use agent_monitor_common::class::{Builtin, Reason};

/// `include/uapi/linux/magic.h`
const CGROUP_MAGIC: u64 = 0x27_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// The built-in denial of any change of a file system, by its magic number: leaving the cgroup and unpinning the monitor
/// start with one.
#[inline(always)]
fn guarded_file_system(magic: u64) -> Option<Builtin> {
    match magic {
        CGROUP_MAGIC | CGROUP2_MAGIC => Some(Builtin::CgroupWrite),
        BPFFS_MAGIC => Some(Builtin::Monitor),
        _ => None,
    }
}

/// The outcome of a change of the name `dentry`, which nothing allows on the cgroup and BPF file systems.
#[inline(always)]
fn on_file_system(outcome: Outcome, dentry: Kernel) -> Outcome {
    let superblock: Kernel = load(dentry, &kernel::DENTRY_SB);
    match guarded_file_system(load(superblock, &kernel::SUPER_MAGIC)) {
        Some(builtin) => Outcome { reason: Reason::Builtin, detail: builtin as u8, ..outcome },
        None => outcome,
    }
}
