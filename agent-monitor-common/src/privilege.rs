//! Privileges: named powers that are neither a file, an exec nor a connection. One table says what each means, which hooks
//! judge it, and which capability the kernel asks for besides; the policy language, records and documentation follow.

use crate::hook::HookId;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct PrivilegeRow {
    /// The privilege.
    pub privilege: Privilege,
    /// What it lets a program do, in a line of the documentation.
    pub meaning: &'static str,
    /// The hooks that judge it. `capable` stands for a power that has no hook of its own: the kernel's question for the
    /// capability is judged as the privilege, too.
    pub hooks: &'static [HookId],
    /// The capability that the kernel asks for besides, if it does, and when.
    pub capability: &'static str,
}

macro_rules! privileges {
    ($($id:ident = $number:literal, $name:literal, $meaning:literal, [$($hook:ident),+], $capability:literal;)+) => {
        crate::class::byte_enum! {
            /// Named powers that are neither a file, an exec nor a connection. No privilege includes another.
            Privilege { $(#[doc = $meaning] $id = $number, $name;)+ }
        }

        /// All privileges with what is to be said about each.
        pub const PRIVILEGES: &[PrivilegeRow] = &[
            $(PrivilegeRow {
                privilege: Privilege::$id,
                meaning: $meaning,
                hooks: &[$(HookId::$hook),+],
                capability: $capability,
            },)+
        ];
    };
}

privileges! {
    PtraceSameAgent = 0, "ptrace-same-agent", "trace, or read through `/proc`, another process of the same agent", [PtraceAccessCheck, PtraceTraceme], "CAP_SYS_PTRACE for a process of another user";
    SignalSameAgent = 1, "signal-same-agent", "send a signal to another process of the same agent", [TaskKill], "CAP_KILL for a process of another user";
    SignalAny = 2, "signal-any", "send a signal to any other process that is not the monitor's, name another one as the receiver of a file's signals, or change them where another one is", [TaskKill, FileFcntl, FileIoctl], "CAP_KILL for a process of another user";
    IoUringSqpoll = 3, "io-uring-sqpoll", "have a kernel thread submit io_uring operations; needs `io-uring`, too", [UringSqpoll], "";
    UserNamespace = 4, "user-namespace", "make a user namespace", [UsernsCreate], "";
    Mount = 5, "mount", "mount, move, change, unmount; pivot the root; freeze or shut down a file system, watch all of one, decide about opens by others", [SbMount, MoveMount, SbUmount, SbPivotroot, Capable, FileIoctl, FileIoctlCompat, PathNotify], "CAP_SYS_ADMIN";
    Chroot = 6, "chroot", "change the root directory", [PathChroot], "CAP_SYS_CHROOT";
    Bpf = 7, "bpf", "every command of bpf(2) but those that get a program, map or link of others, which could be the monitor's", [Bpf], "CAP_BPF, and others by the kind of program";
    PerfEvents = 8, "perf-events", "open performance events", [PerfEventOpen], "CAP_PERFMON beyond what `kernel.perf_event_paranoid` gives to all";
    KernelModule = 9, "kernel-module", "load a kernel module, or have the kernel load one for a name that it does not know", [KernelModuleRequest, KernelLoadData, KernelReadFile, SocketSetsockopt], "CAP_SYS_MODULE to load one by a call";
    Kexec = 10, "kexec", "load another kernel", [KernelLoadData, KernelReadFile], "CAP_SYS_BOOT";
    Reboot = 11, "reboot", "reboot(2)", [Capable], "CAP_SYS_BOOT";
    SetTime = 12, "set-time", "set, step or adjust a clock", [Settime, Capable], "CAP_SYS_TIME";
    Syslog = 13, "syslog", "read or change the kernel's log", [Syslog], "CAP_SYSLOG beyond what `kernel.dmesg_restrict` gives to all";
    Keyring = 14, "keyring", "make and use keys and keyrings", [KeyAlloc, KeyPermission], "";
    Swap = 15, "swap", "swapon(2), swapoff(2)", [Capable], "CAP_SYS_ADMIN";
    Quota = 16, "quota", "quotactl(2)", [Quotactl], "CAP_SYS_ADMIN to change, or to see another user's";
    RawIo = 17, "raw-io", "ports, physical memory, raw commands to devices: whatever asks for CAP_SYS_RAWIO", [Capable], "CAP_SYS_RAWIO";
    SetuidExec = 18, "setuid-exec", "execute a program that changes the effective user or group id or gains capabilities by its file", [BprmCredsFromFile], "";
    IoUring = 20, "io-uring", "make an io_uring", [UringAllowed, InodeInitSecurityAnon], "on an overlay, those that copying a file up asks for: they are not told from the agent's own";
    IoUringCommand = 21, "io-uring-command", "send a command to a driver through io_uring; needs `io-uring`, too", [UringCmd], "";
    Userfaultfd = 22, "userfaultfd", "handle page faults of its own memory", [InodeInitSecurityAnon], "CAP_SYS_PTRACE beyond what `vm.unprivileged_userfaultfd` gives to all";
    Secretmem = 23, "secretmem", "make memory that the kernel itself does not see", [InodeInitSecurityAnon], "";
    ResourcesAny = 24, "resources-any", "change the limits, priority, scheduling or I/O priority of a process that is not the same agent's", [TaskSetrlimit, TaskSetnice, TaskSetioprio, TaskSetscheduler], "CAP_SYS_NICE, CAP_SYS_RESOURCE for a process of another user";
    IpcAny = 25, "ipc-any", "use System V memory, messages and semaphores that the same agent did not make", [IpcPermission, ShmShmctl, MsgQueueMsgctl, SemSemctl], "CAP_IPC_OWNER, CAP_SYS_ADMIN for those of another user";
    Subvolumes = 26, "subvolumes", "make, copy and remove subvolumes of btrfs and bcachefs, search the trees of btrfs or send them, copy by name on ocfs2, use files of XFS by their handles, be told what changes below a directory of SMB, have files share what they hold (FIDEDUPERANGE tells whether they hold the same); a copy has each file under another name", [FileIoctl, FileIoctlCompat], "";
    SetIdBits = 27, "set-id-bits", "make a file that changes the user or group id of whoever executes it", [PathChmod, PathMknod, FileOpen], "CAP_FSETID for a group that is not the task's";
    CoreDump = 40, "core-dump", "leave a core dump when a signal ends a process: a file, or a program that the kernel starts for it", [CredPrepare], "";
}

/// The word of the policy language that no policy can be granted, and why.
pub const NEVER: &[(&str, &str)] = &[(
    "cgroup-write",
    "what an agent may write to the cgroup file system, it leaves its cgroup by: have whoever made the cgroup write it",
)];

const _: () = {
    let mut at = 0;
    while at < PRIVILEGES.len() {
        assert!(!PRIVILEGES[at].hooks.is_empty());
        at += 1;
    }
};
