//! The hook table: one row for each place in the kernel where a program of ours runs. The loader, attaching, decoding,
//! metrics, `doctor`, the documentation and the completeness tests walk it.
//!
//! A new LSM hook is three places: its row here, its file in `agent-monitor-ebpf/src/hooks/`, its scenario in `tests/`.
//!
//! The rows stand by number. Programs are loaded, attached and documented in this order; nothing relies on it.

use crate::class::Class;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// LSM program on `bpf_lsm_<name>`, which must have this many parameters in the kernel's BTF.
    Lsm(u8),
    /// LSM program that knows two forms of the hook, by the number of parameters. The loader puts the one that the
    /// kernel has into the constant `<NAME>_PARAMETERS` of the object.
    LsmForms([u8; 2]),
    /// Program on a cgroup's socket addresses, attached to the root of the hierarchy.
    CgroupSockAddr,
    /// Program on what leaves from a cgroup's sockets, attached to the root of the hierarchy.
    CgroupEgress,
    /// BTF tracepoint of this name with this many parameters.
    Tracepoint(u8),
    /// The same, attached only while the policy of some agent asks for it.
    TracepointOnRequest(u8),
}

impl Attach {
    /// Whether it is an LSM program, which runs only where `bpf` is among the kernel's LSMs.
    #[must_use]
    pub const fn is_lsm(self) -> bool {
        matches!(self, Self::Lsm(_) | Self::LsmForms(_))
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its number in events.
    pub id: HookId,
    /// Name of the program in the object and of the hook in records and metrics; for an LSM hook or a tracepoint also
    /// the kernel's own name.
    pub name: &'static str,
    /// How it is attached.
    pub attach: Attach,
    /// The class of the operations that it judges first; `None` where it judges nothing (identity).
    pub class: Option<Class>,
    /// What it is for, in a line of the documentation.
    pub purpose: &'static str,
    /// Why nothing passes unjudged on a supported kernel that lacks the hook; `None` where all have it, so that one
    /// without it is refused.
    pub absent: Option<&'static str>,
}

impl Hook {
    /// Whether a kernel may lack the hook.
    #[must_use]
    pub const fn optional(&self) -> bool {
        self.absent.is_some()
    }
}

/// Nothing, or what is given.
macro_rules! optional {
    () => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $id:ident = $number:literal, $name:literal, $attach:expr, $class:expr, $purpose:literal $(, absent $absent:literal)?;)+) => {
        /// The number of a hook in events. Numbers are never used again for another hook.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum HookId { $(#[doc = $purpose] $id = $number,)+ }

        /// All hooks.
        pub const HOOKS: &[Hook] = &[
            $(Hook {
                id: HookId::$id,
                name: $name,
                attach: $attach,
                class: $class,
                purpose: $purpose,
                absent: optional!($($absent)?),
            },)+
        ];

        impl HookId {
            /// The hook with this number in an event.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$id),)+ _ => None }
            }

            /// The row of this hook.
            #[must_use]
            pub fn row(self) -> &'static Hook {
                HOOKS.iter().find(|row| row.id == self).expect("each id has a row: both come from one macro")
            }
        }
    };
}

use Attach::{CgroupEgress, CgroupSockAddr, Lsm, LsmForms, Tracepoint, TracepointOnRequest};
use Class::{Capability, Exec, File, Network, Privilege, Syscall};

hooks! {
    FileOpen = 1, "file_open", Lsm(1), Some(File), "open of a file, and of what an exec reads: program, interpreter, loader";
    BprmCheckSecurity = 2, "bprm_check_security", Lsm(1), Some(Exec), "exec, once for each stage: script, then interpreter";
    MmapFile = 3, "mmap_file", Lsm(4), Some(File), "mapping of a file or of anonymous memory with PROT_EXEC";
    FileMprotect = 4, "file_mprotect", Lsm(3), Some(File), "making mapped memory executable";
    PathMknod = 5, "path_mknod", Lsm(4), Some(File), "creation of a file by open or mknod, and of a unix socket by bind; with set-id bits";
    PathMkdir = 6, "path_mkdir", Lsm(3), Some(File), "creation of a directory";
    PathSymlink = 7, "path_symlink", Lsm(3), Some(File), "creation of a symbolic link";
    PathLink = 8, "path_link", Lsm(3), Some(File), "creation of a hard link";
    PathUnlink = 9, "path_unlink", Lsm(2), Some(File), "removal of a name";
    PathRmdir = 10, "path_rmdir", Lsm(2), Some(File), "removal of a directory";
    PathRename = 11, "path_rename", Lsm(5), Some(File), "rename, replace and exchange of names";
    PathTruncate = 12, "path_truncate", Lsm(1), Some(File), "truncation by path and by O_TRUNC";
    PathChmod = 13, "path_chmod", Lsm(2), Some(File), "change of the mode, to one with set-id bits, too";
    PathChown = 14, "path_chown", Lsm(3), Some(File), "change of the owner";
    InodeSetattr = 15, "inode_setattr", LsmForms([2, 3]), Some(File), "change of the times";
    InodeSetxattr = 16, "inode_setxattr", Lsm(6), Some(File), "setting of an extended attribute";
    InodeRemovexattr = 17, "inode_removexattr", Lsm(3), Some(File), "removal of an extended attribute";
    InodeSetAcl = 18, "inode_set_acl", Lsm(4), Some(File), "setting of an access list", absent "inode_setxattr sees it there";
    InodeRemoveAcl = 19, "inode_remove_acl", Lsm(3), Some(File), "removal of an access list", absent "inode_removexattr sees it there";
    SocketCreate = 20, "socket_create", Lsm(4), Some(Network), "creation of a socket of any family";
    SocketConnect = 21, "socket_connect", Lsm(3), Some(Network), "connect of an internet socket";
    SocketSendmsg = 22, "socket_sendmsg", Lsm(3), Some(Network), "send, to an address that is named in the call or to the peer, over sockets of all families but netlink";
    SocketBind = 23, "socket_bind", Lsm(3), Some(Network), "bind of an internet or abstract unix socket";
    SocketListen = 24, "socket_listen", Lsm(2), Some(Network), "listen on the socket's own address";
    UnixStreamConnect = 25, "unix_stream_connect", Lsm(3), Some(Network), "connect of a unix stream or seqpacket socket";
    UnixMaySend = 26, "unix_may_send", Lsm(2), Some(Network), "connect and send of a unix datagram socket";
    SocketSetsockopt = 27, "socket_setsockopt", Lsm(3), Some(Network), "options that send by way of other addresses, or have a module loaded";
    SocketRecvmsg = 28, "socket_recvmsg", Lsm(4), Some(Network), "receive, from the peer";
    NetlinkSend = 29, "netlink_send", Lsm(2), Some(Network), "send over netlink";
    Connect4 = 30, "connect4", CgroupSockAddr, Some(Network), "connect over IPv4, also by TCP fast open";
    Connect6 = 31, "connect6", CgroupSockAddr, Some(Network), "connect over IPv6, also by TCP fast open";
    Sendmsg4 = 32, "sendmsg4", CgroupSockAddr, Some(Network), "unconnected UDP send over IPv4";
    Sendmsg6 = 33, "sendmsg6", CgroupSockAddr, Some(Network), "unconnected UDP send over IPv6";
    Bind4 = 34, "bind4", CgroupSockAddr, Some(Network), "bind over IPv4";
    Bind6 = 35, "bind6", CgroupSockAddr, Some(Network), "bind over IPv6";
    SctpBindConnect = 36, "sctp_bind_connect", Lsm(4), Some(Network), "addresses that options of an SCTP socket bind and connect to";
    SkbEgress = 37, "skb_egress", CgroupEgress, Some(Network), "packets that leave with a source route or a routing header";
    SocketGetsockopt = 38, "socket_getsockopt", Lsm(3), Some(Network), "an option that receives: TCP_ZEROCOPY_RECEIVE";
    PtraceAccessCheck = 40, "ptrace_access_check", Lsm(2), Some(Privilege), "tracing, and reading another process's memory and /proc entries";
    TaskKill = 41, "task_kill", Lsm(4), Some(Privilege), "sending of signals";
    Capable = 42, "capable", Lsm(4), Some(Capability), "use of a capability, in any user namespace";
    TaskAlloc = 43, "task_alloc", Lsm(2), Some(Privilege), "creation of a process: not in another cgroup";
    UringOverrideCreds = 44, "uring_override_creds", Lsm(1), Some(Privilege), "io_uring operations with other credentials than the task's own", absent "such a kernel has no io_uring";
    UringSqpoll = 45, "uring_sqpoll", Lsm(0), Some(Privilege), "a kernel thread that submits io_uring operations", absent "such a kernel has no io_uring";
    SbMount = 46, "sb_mount", Lsm(5), Some(Privilege), "mount(2): new mounts, binds, remounts, moves, propagation";
    MoveMount = 47, "move_mount", Lsm(2), Some(Privilege), "giving a mount made by the new calls its place";
    SbUmount = 48, "sb_umount", Lsm(2), Some(Privilege), "unmounting";
    SbPivotroot = 49, "sb_pivotroot", Lsm(2), Some(Privilege), "pivot_root(2)";
    PathChroot = 50, "path_chroot", Lsm(1), Some(Privilege), "change of the root directory";
    UsernsCreate = 51, "userns_create", Lsm(1), Some(Privilege), "creation of a user namespace";
    PtraceTraceme = 52, "ptrace_traceme", Lsm(1), Some(Privilege), "a process that asks its parent to trace it";
    TaskSetrlimit = 53, "task_setrlimit", Lsm(3), Some(Privilege), "change of another process's limits";
    TaskSetnice = 54, "task_setnice", Lsm(2), Some(Privilege), "change of another process's priority";
    TaskSetioprio = 55, "task_setioprio", Lsm(2), Some(Privilege), "change of another process's I/O priority";
    TaskSetscheduler = 56, "task_setscheduler", Lsm(1), Some(Privilege), "change of another process's scheduling or CPUs";
    Bpf = 57, "bpf", LsmForms([3, 4]), Some(Privilege), "bpf(2)";
    PerfEventOpen = 58, "perf_event_open", LsmForms([1, 2]), Some(Privilege), "perf_event_open(2)";
    KeyAlloc = 59, "key_alloc", Lsm(3), Some(Privilege), "creation of a key, also of one that the kernel would have a helper program make";
    CgroupMkdir = 60, "cgroup_mkdir", Tracepoint(2), None, "a new cgroup gets the binding of the one that it was made in";
    CgroupRelease = 61, "cgroup_release", Tracepoint(2), None, "a binding that was made while the directory was removed ends with the cgroup";
    TaskSetpgid = 62, "task_setpgid", Lsm(2), Some(Privilege), "joining a process group of a session that is not the agent's";
    CgroupRmdir = 63, "cgroup_rmdir", Tracepoint(2), None, "the binding of a cgroup ends with its directory";
    FileTruncate = 70, "file_truncate", Lsm(1), Some(File), "truncation by descriptor", absent "path_truncate sees it there";
    FileReceive = 71, "file_receive", Lsm(1), Some(File), "descriptors from a unix socket or another process";
    FileIoctl = 72, "file_ioctl", Lsm(3), Some(File), "flags of a file, subvolumes, input and foreground of a terminal, and who gets signals about a file, by ioctl";
    FileIoctlCompat = 73, "file_ioctl_compat", Lsm(3), Some(File), "the same by a 32-bit program", absent "file_ioctl sees it there";
    InodeFileSetattr = 74, "inode_file_setattr", Lsm(2), Some(File), "flags of a file set by file_setattr", absent "flags are set by ioctl alone there";
    FileFcntl = 75, "file_fcntl", Lsm(3), Some(Privilege), "who gets the signals about a file, and which; leases";
    CredPrepare = 76, "cred_prepare", Lsm(3), Some(Privilege), "core dumps";
    FilePermission = 77, "file_permission", Lsm(2), Some(File), "writes to files of cgroups, also opened before; splice and sendfile with sockets";
    PathNotify = 78, "path_notify", Lsm(3), Some(File), "watching a file or directory: inotify, fanotify";
    InodeGetxattr = 79, "inode_getxattr", Lsm(2), Some(File), "reading of an extended attribute of users or of root";
    InodeCreate = 80, "inode_create", Lsm(3), Some(File), "creation of a POSIX message queue";
    InodeUnlink = 81, "inode_unlink", Lsm(2), Some(File), "removal of a POSIX message queue";
    FileSendSigiotask = 82, "file_send_sigiotask", Lsm(3), Some(Privilege), "signals about files: none to the monitor";
    KeyPermission = 90, "key_permission", Lsm(3), Some(Privilege), "use of a key or keyring";
    KernelModuleRequest = 91, "kernel_module_request", Lsm(1), Some(Privilege), "a module that the kernel would have a helper program load";
    KernelLoadData = 92, "kernel_load_data", Lsm(2), Some(Privilege), "modules and kernels from memory: init_module(2), kexec_load(2)";
    KernelReadFile = 93, "kernel_read_file", Lsm(3), Some(Privilege), "modules and kernels from files: finit_module(2), kexec_file_load(2)";
    Settime = 94, "settime", Lsm(2), Some(Privilege), "setting the clock, once CAP_SYS_TIME is given";
    Syslog = 95, "syslog", Lsm(1), Some(Privilege), "the kernel's log: syslog(2), `/dev/kmsg`, `/proc/kmsg`";
    Quotactl = 96, "quotactl", Lsm(4), Some(Privilege), "quotactl(2)";
    UringCmd = 97, "uring_cmd", Lsm(1), Some(Privilege), "commands to drivers through io_uring", absent "such a kernel has no io_uring";
    UringAllowed = 98, "uring_allowed", Lsm(0), Some(Privilege), "io_uring_setup(2)", absent "`inode_init_security_anon` sees each ring made";
    InodeInitSecurityAnon = 99, "inode_init_security_anon", Lsm(3), Some(Privilege), "creation of an io_uring, a userfaultfd, secret memory";
    BprmCredsFromFile = 101, "bprm_creds_from_file", Lsm(2), Some(Privilege), "exec of a program that gives ids or capabilities";
    IpcPermission = 102, "ipc_permission", Lsm(2), Some(Privilege), "use of System V memory, messages and semaphores";
    ShmShmctl = 103, "shm_shmctl", Lsm(2), Some(Privilege), "control of System V memory";
    MsgQueueMsgctl = 104, "msg_queue_msgctl", Lsm(2), Some(Privilege), "control of System V message queues";
    SemSemctl = 105, "sem_semctl", Lsm(2), Some(Privilege), "control of System V semaphores";
    ShmAllocSecurity = 106, "shm_alloc_security", Lsm(1), None, "whose System V memory is";
    MsgQueueAllocSecurity = 107, "msg_queue_alloc_security", Lsm(1), None, "whose a System V message queue is";
    SemAllocSecurity = 108, "sem_alloc_security", Lsm(1), None, "whose System V semaphores are";
    ShmFreeSecurity = 109, "shm_free_security", Lsm(1), None, "System V memory that is gone is nobody's";
    MsgQueueFreeSecurity = 110, "msg_queue_free_security", Lsm(1), None, "a System V message queue that is gone is nobody's";
    SemFreeSecurity = 111, "sem_free_security", Lsm(1), None, "System V semaphores that are gone are nobody's";
    BprmCredsForExec = 120, "bprm_creds_for_exec", Lsm(1), Some(Exec), "exec without a filter for system calls, under a policy with rules for them";
    SysEnter = 121, "sys_enter", TracepointOnRequest(2), Some(Syscall), "each system call, while an agent's policy has `syscallEnforcement: kill`";
}

/// Hooks of the kernel on the way of what an agent may try that have no program, and who judges instead.
pub const NOT_ATTACHED: &[(&str, &str)] = &[
    ("inode_permission", "asked for every name of every path of every task; what it sees is judged where it is used"),
    ("inode_getattr", "asked for every stat; looking at a file's size and times is not judged"),
    ("task_fix_setuid", "another id than the task's own needs CAP_SETUID or CAP_SETGID, which `capable` judges first"),
    ("task_movememory", "`ptrace_access_check` sees each such call first"),
    ("task_prlimit", "is told credentials and no process; changes are judged by `task_setrlimit`"),
];
