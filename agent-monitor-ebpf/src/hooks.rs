//! One file a hook, or a family of hooks that differ in a constant. Each only translates arguments to an operation.

mod bprm_check_security;
mod bprm_creds_for_exec;
mod bprm_creds_from_file;
mod capable;
mod cgroup_mkdir;
mod cgroup_release;
mod cgroup_rmdir;
mod cred_prepare;
mod file_fcntl;
mod file_ioctl;
mod file_mprotect;
mod file_open;
mod file_permission;
mod file_receive;
mod file_send_sigiotask;
mod file_truncate;
mod inode_attributes;
mod inode_init_security_anon;
mod kernel_read;
mod message_queues;
mod mmap_file;
mod mounts;
mod netlink_send;
mod path_attributes;
mod path_create;
mod path_link;
mod path_notify;
mod path_remove;
mod path_rename;
mod power;
mod ptrace;
mod sctp_bind_connect;
mod skb_egress;
mod sock_addr;
mod socket_bind;
mod socket_connect;
mod socket_create;
mod socket_getsockopt;
mod socket_listen;
mod socket_recvmsg;
mod socket_sendmsg;
mod socket_setsockopt;
mod sys_enter;
mod sysv_ipc;
mod task_alloc;
mod task_kill;
mod task_resources;
mod task_setpgid;
mod unix_peer;
mod uring_override_creds;
mod uring_sqpoll;

use crate::kernel::{self, Kernel, load};
use crate::operation::Operation;
use agent_monitor_common::class::Builtin;

// `include/uapi/linux/stat.h`
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFSOCK: u16 = 0o140_000;
// `include/uapi/linux/magic.h`
const CGROUP_MAGIC: u64 = 0x27_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// Whether an inode is of this type, one of `S_IF*`.
#[inline(always)]
fn is_type(inode: Kernel, kind: u16) -> bool {
    load::<u16>(inode, &kernel::INODE_MODE) & S_IFMT == kind
}

/// Turns what was found about a change on `superblock` into the built-in denial that holds for the cgroup and BPF file
/// systems: leaving the cgroup and unpinning the monitor start with one.
#[inline(always)]
fn on_file_system(operation: &mut Operation<'_>, superblock: Kernel) {
    on_magic(operation, load(superblock, &kernel::SUPER_MAGIC));
}

/// The same by the number of the file system's type.
#[inline(always)]
fn on_magic(operation: &mut Operation<'_>, magic: u64) {
    if magic == CGROUP_MAGIC || magic == CGROUP2_MAGIC {
        operation.becomes_builtin(Builtin::CgroupWrite);
    } else if magic == BPFFS_MAGIC {
        operation.becomes_builtin(Builtin::Monitor);
    }
}
