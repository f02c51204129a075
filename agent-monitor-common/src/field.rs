//! The fields of kernel structures that the programs read. The loader finds each in the running kernel's BTF and puts its
//! offset into the read-only data of the object before it is loaded, so that the verifier sees a constant: one object
//! serves all kernels. A field that the kernel lacks keeps [`MISSING`], and what needs it is refused.

/// Offset of a field that the running kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// Calls the macro `$with` with all fields: `SYMBOL, "struct", "member.member", "what it is for";` each.
#[macro_export]
macro_rules! kernel_fields {
    ($with:ident) => {
        $with! {
            FILE_F_PATH, "file", "f_path", "the path of an open file";
            FILE_F_FLAGS, "file", "f_flags", "flags of open";
            FILE_F_MODE, "file", "f_mode", "whether a file is open for reading and writing";
            FILE_F_INODE, "file", "f_inode", "the inode of an open file";
            FILE_OWNER, "file", "f_owner", "who gets the signals about a file";
            FILE_OWNER_PID, "file", "f_owner.pid", "the same, before 6.12, where it is a part of the file";
            FOWN_PID, "fown_struct", "pid", "the id of who gets the signals about a file";
            BACKING_FILE_PATH, "backing_file", "user_path", "the path of an overlay's file that is mapped, from 6.8 on";
            PATH_MNT, "path", "mnt", "the mount of a path";
            PATH_DENTRY, "path", "dentry", "the name of a path";
            VFSMOUNT_FLAGS, "vfsmount", "mnt_flags", "whether a mount is read-only";
            VFSMOUNT_ROOT, "vfsmount", "mnt_root", "the top of a mount";
            MOUNT_MNT, "mount", "mnt", "the mount around a vfsmount";
            MOUNT_PARENT, "mount", "mnt_parent", "the mount that a mount is on";
            MOUNT_MOUNTPOINT, "mount", "mnt_mountpoint", "the name that a mount is on";
            MOUNT_MOUNTS, "mount", "mnt_mounts", "the mounts on a mount";
            MOUNT_NS, "mount", "mnt_ns", "the namespace of a mount";
            MOUNT_INSTANCE, "mount", "mnt_instance", "the list of a file system's mounts, before 6.18";
            MOUNT_NEXT, "mount", "mnt_next_for_sb", "the next mount of a file system, from 6.18 on";
            DENTRY_FLAGS, "dentry", "d_flags", "whether a name is compared in a way of its file system's own";
            DENTRY_SEQ, "dentry", "d_seq", "changes with each rename of a name";
            DENTRY_HASH, "dentry", "d_hash", "whether a name still exists";
            DENTRY_PARENT, "dentry", "d_parent", "the directory of a name";
            DENTRY_NAME, "dentry", "d_name", "a name";
            DENTRY_INODE, "dentry", "d_inode", "the file of a name";
            DENTRY_SB, "dentry", "d_sb", "the file system of a name";
            INODE_MODE, "inode", "i_mode", "the type of a file";
            INODE_FLAGS, "inode", "i_flags", "whether a directory takes several spellings for one name";
            INODE_NLINK, "inode", "i_nlink", "how many names a file has";
            INODE_SB, "inode", "i_sb", "the file system of a file";
            SUPER_MAGIC, "super_block", "s_magic", "the type of a file system";
            SUPER_MOUNTS, "super_block", "s_mounts", "the mounts of a file system";
            SUPER_FLAGS, "super_block", "s_flags", "whether a file system is internal to the kernel";
            BPRM_FILE, "linux_binprm", "file", "the file that is executed";
            VMA_FILE, "vm_area_struct", "vm_file", "the file of mapped memory";
            VMA_ANONYMOUS, "vm_area_struct", "anon_vma", "whether mapped memory holds what was written to it";
            VMA_FLAGS, "vm_area_struct", "vm_flags", "whether mapped memory is executable already";
            SOCKET_SK, "socket", "sk", "the socket of a file";
            SOCKET_TYPE, "socket", "type", "stream or datagram";
            SOCK_FAMILY, "sock", "__sk_common.skc_family", "the address family";
            SOCK_PROTOCOL, "sock", "sk_protocol", "the protocol";
            SOCK_TYPE, "sock", "sk_type", "stream, datagram or raw";
            SOCK_LOCAL_PORT, "sock", "__sk_common.skc_num", "the local port";
            SOCK_LOCAL_V4, "sock", "__sk_common.skc_rcv_saddr", "the local IPv4 address";
            SOCK_LOCAL_V6, "sock", "__sk_common.skc_v6_rcv_saddr", "the local IPv6 address";
            SOCK_PEER_PORT, "sock", "__sk_common.skc_dport", "the peer's port";
            SOCK_PEER_V4, "sock", "__sk_common.skc_daddr", "the peer's IPv4 address";
            SOCK_PEER_V6, "sock", "__sk_common.skc_v6_daddr", "the peer's IPv6 address";
            UNIX_SOCK_PEER, "unix_sock", "peer", "the socket that a unix socket is connected to";
            UNIX_SOCK_ADDRESS, "unix_sock", "addr", "the name of a unix socket";
            UNIX_SOCK_PATH, "unix_sock", "path", "the path of a unix socket";
            UNIX_ADDRESS_LENGTH, "unix_address", "len", "the length of a unix socket's name";
            UNIX_ADDRESS_NAME, "unix_address", "name", "a unix socket's name";
            MSGHDR_NAME, "msghdr", "msg_name", "the address that a send names";
            MSGHDR_NAME_LENGTH, "msghdr", "msg_namelen", "the length of that address";
            MSGHDR_CONTROL, "msghdr", "msg_control", "control messages of a send";
            MSGHDR_CONTROL_LENGTH, "msghdr", "msg_controllen", "their length";
            MSGHDR_FLAGS, "msghdr", "msg_flags", "flags of a send";
            TASK_SECCOMP_MODE, "task_struct", "seccomp.mode", "whether a task carries a filter for system calls";
            TASK_STATUS, "task_struct", "thread_info.status", "whether a system call is a 32-bit one";
            TASK_FS, "task_struct", "fs", "the root of a task";
            TASK_FILES, "task_struct", "files", "what a task has open";
            FILES_TABLE, "files_struct", "fdt", "the table of descriptors";
            TABLE_SIZE, "fdtable", "max_fds", "how many descriptors a table has room for";
            TABLE_FILES, "fdtable", "fd", "the files of a table of descriptors";
            TASK_FLAGS, "task_struct", "flags", "whether a task is a worker of io_uring, or is dying";
            TASK_NSPROXY, "task_struct", "nsproxy", "the namespaces of a task";
            NSPROXY_MOUNTS, "nsproxy", "mnt_ns", "the mount namespace of a task";
            TASK_TGID, "task_struct", "tgid", "the process id";
            TASK_PID, "task_struct", "pid", "the thread id";
            TASK_COMM, "task_struct", "comm", "the name of a thread";
            TASK_GROUP_LEADER, "task_struct", "group_leader", "the first thread of a process";
            TASK_PARENT, "task_struct", "real_parent", "the parent process";
            TASK_START, "task_struct", "start_boottime", "the start of a task";
            TASK_THREAD_PID, "task_struct", "thread_pid", "ids in the namespaces of a task";
            TASK_SIGNAL, "task_struct", "signal", "what the threads of a process share";
            TASK_PID_LINKS, "task_struct", "pid_links", "where a task is in the list of its id";
            SIGNAL_PIDS, "signal_struct", "pids", "the session of a process";
            PID_TASKS, "pid", "tasks", "the tasks of an id";
            TASK_CRED, "task_struct", "cred", "the credentials that a task acts with";
            TASK_REAL_CRED, "task_struct", "real_cred", "a task's own credentials";
            TASK_IO_URING, "task_struct", "io_uring", "whether a task has an io_uring";
            VFSMOUNT_SB, "vfsmount", "mnt_sb", "the file system of a mount";
            SOCK_IS_KERNEL, "sock", "sk_kern_sock", "whether a socket is the kernel's own";
            SOCK_DEVICE, "sock", "__sk_common.skc_bound_dev_if", "the device that a socket sends by";
            INET_SOURCE, "inet_sock", "inet_saddr", "the address that a socket sends from";
            INET_DEVICE, "inet_sock", "uc_index", "the device that a socket sends to hosts by";
            INET_OPTIONS, "inet_sock", "inet_opt", "the IP options of a socket";
            IP_OPTIONS_ROUTE, "ip_options_rcu", "opt.srr", "whether IP options have a source route";
            INET_V6, "inet_sock", "pinet6", "what a socket has for IPv6";
            V6_OPTIONS, "ipv6_pinfo", "opt", "the IPv6 options of a socket";
            V6_OPTIONS_ROUTE, "ipv6_txoptions", "srcrt", "whether IPv6 options have a routing header";
            UDP_PENDING, "udp_sock", "pending", "whether a datagram is being put together";
            CORK_V4, "inet_sock", "cork.fl.u.ip4.daddr", "where it goes by IPv4";
            CORK_V4_PORT, "inet_sock", "cork.fl.u.ip4.uli.ports.dport", "and to which port";
            CORK_V6, "inet_sock", "cork.fl.u.ip6.daddr", "where it goes by IPv6";
            CORK_V6_PORT, "inet_sock", "cork.fl.u.ip6.uli.ports.dport", "and to which port";
            SOCK_PEER_PID, "sock", "sk_peer_pid", "who listens at a unix socket";
            TASK_CGROUPS, "task_struct", "cgroups", "the cgroups of a task";
            IATTR_VALID, "iattr", "ia_valid", "which attributes are changed";
            CRED_UID, "cred", "uid", "the user id of credentials";
            CRED_EUID, "cred", "euid", "the effective user id of credentials";
            CRED_EGID, "cred", "egid", "the effective group id of credentials";
            CRED_PERMITTED, "cred", "cap_permitted", "the capabilities of credentials";
            BPRM_CRED, "linux_binprm", "cred", "the credentials after an exec";
            REGS_SYSCALL, "pt_regs", "orig_ax", "the system call of a task";
            REGS_FIRST, "pt_regs", "di", "the first argument of a system call";
            REGS_FIRST_FOREIGN, "pt_regs", "bx", "the first argument of a 32-bit system call";
            QSTR_NAME, "qstr", "name", "the bytes of a name";
            FS_ROOT, "fs_struct", "root", "the root of a task";
            PID_LEVEL, "pid", "level", "the depth of a pid namespace";
            PID_NUMBERS, "pid", "numbers", "the ids in each pid namespace";
            UPID_NUMBER, "upid", "nr", "the id in one pid namespace";
            CSS_SET_CGROUP, "css_set", "dfl_cgrp", "the cgroup of a task";
            CGROUP_KN, "cgroup", "kn", "the id of a cgroup";
            CGROUP_PARENT, "cgroup", "self.parent", "the cgroup that a cgroup was made in";
            CGROUP_ROOT, "cgroup", "root", "the hierarchy of a cgroup";
            HIERARCHY_ID, "cgroup_root", "hierarchy_id", "which hierarchy it is";
            CGROUP_LEVEL, "cgroup", "level", "the depth of a cgroup";
            CSS_CGROUP, "cgroup_subsys_state", "cgroup", "the cgroup of its state";
            KERNFS_NODE_ID, "kernfs_node", "id", "the id of a cgroup";
            KERNFS_NODE_NAME, "kernfs_node", "name", "the name of a cgroup";
        }
    };
}

/// Fields of which a kernel has one or the other, by their symbols: the one that it lacks keeps [`MISSING`], and the
/// programs know both ways.
pub const EITHER: &[[&str; 2]] = &[["MOUNT_INSTANCE", "MOUNT_NEXT"]];

/// Fields that a kernel may lack, by their symbols: one without io_uring; one whose overlays map files under their path; one
/// whose files point to who gets their signals.
pub const OPTIONAL: &[&str] = &["TASK_IO_URING", "BACKING_FILE_PATH", "FILE_OWNER_PID"];

/// Bit fields of which the programs need the bit in its byte, by their symbols, with the symbols of the masks.
pub const MASKS: &[(&str, &str)] = &[("SOCK_IS_KERNEL", "SOCK_IS_KERNEL_MASK")];

macro_rules! list {
    ($($symbol:ident, $structure:literal, $member:literal, $purpose:literal;)+) => {
        /// All fields.
        pub const FIELDS: &[Field] = &[
            $(Field { symbol: stringify!($symbol), structure: $structure, member: $member, purpose: $purpose },)+
        ];
    };
}

/// A row of the table of fields.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the constant in the object.
    pub symbol: &'static str,
    /// The kernel's structure.
    pub structure: &'static str,
    /// The member, or members of members with dots between.
    pub member: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

kernel_fields!(list);

/// Sizes of kernel structures that the programs need, found like the fields: `SYMBOL, "struct"`.
pub const SIZES: &[(&str, &str)] = &[("UPID_BYTES", "upid")];

/// Values of the kernel's enumerations that the programs compare with: they shift when the kernel puts one in front.
/// `SYMBOL, "enum", "enumerator"`; one that a kernel lacks is [`MISSING`], which no argument is.
pub const ENUMERATORS: &[(&str, &str, &str)] = &[
    ("LOADING_FIRMWARE", "kernel_load_data_id", "LOADING_FIRMWARE"),
    ("LOADING_KEXEC_IMAGE", "kernel_load_data_id", "LOADING_KEXEC_IMAGE"),
    ("LOADING_KEXEC_INITRAMFS", "kernel_load_data_id", "LOADING_KEXEC_INITRAMFS"),
    ("READING_FIRMWARE", "kernel_read_file_id", "READING_FIRMWARE"),
    ("READING_KEXEC_IMAGE", "kernel_read_file_id", "READING_KEXEC_IMAGE"),
    ("READING_KEXEC_INITRAMFS", "kernel_read_file_id", "READING_KEXEC_INITRAMFS"),
];
