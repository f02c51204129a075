//! Groups of system calls.
//!
//! Names and members are those of systemd's filter sets, as `systemd-analyze syscall-filter` of systemd 252 lists them, as
//! far as x86_64 has the calls; `@sandbox` is that of later versions (systemd.exec(5)). Calls that are newer stand where
//! their older kin do. `@agent` is our own.

use agent_monitor_common::syscall;

/// The calls that a policy has in which no document has `syscalls`.
pub(crate) const AGENT: &str = "@agent";
/// Calls of another interface than the machine's own.
pub(crate) const FOREIGN: &str = "@foreign";
/// Every call that has a name.
pub(crate) const KNOWN: &str = "@known";

/// A group.
pub struct Group {
    /// Its name, which begins with `@`.
    pub name: &'static str,
    /// What it is for, in a line of the documentation.
    pub purpose: &'static str,
    /// Calls and other groups, groups first.
    pub members: &'static [&'static str],
}

/// The groups, without `@known` and `@foreign`, which have no list.
#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    Group {
        name: "@agent",
        purpose: "what ordinary programs, compilers, interpreters and browsers need; the calls of a policy without `syscalls`",
        members: &[
            "@basic-io", "@chown", "@default", "@file-system", "@io-event", "@memlock", "@network-io", "@pkey",
            "@resources", "@sandbox", "@setuid", "@signal", "@sync", "@timer", "capget", "capset", "clone", "clone3",
            "copy_file_range", "execveat", "fadvise64", "flock", "fork", "get_mempolicy", "getcpu", "getpriority",
            "getrusage", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "ioctl",
            "ioprio_get", "kcmp", "kill", "lsm_get_self_attr", "lsm_list_modules", "madvise", "memfd_create",
            "mincore",
            "mremap", "msgctl", "msgget", "msgrcv", "msgsnd", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2",
            "prctl", "process_madvise", "readahead", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
            "sched_get_priority_max", "sched_get_priority_min", "sched_getattr", "sched_getparam",
            "sched_getscheduler", "sched_rr_get_interval", "semctl", "semget", "semop", "semtimedop", "sendfile",
            "setfsgid", "setfsuid", "setpgid", "setsid", "shmat", "shmctl", "shmdt", "shmget", "splice", "sysinfo",
            "tee", "tgkill", "tkill", "umask", "uname", "unshare", "vfork", "vmsplice", "wait4", "waitid",
        ],
    },
    Group {
        name: "@aio",
        purpose: "asynchronous input and output",
        members: &[
            "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "io_uring_enter",
            "io_uring_register", "io_uring_setup",
        ],
    },
    Group {
        name: "@basic-io",
        purpose: "reading and writing what is open",
        members: &[
            "close", "close_range", "dup", "dup2", "dup3", "lseek", "pread64", "preadv", "preadv2", "pwrite64",
            "pwritev", "pwritev2", "read", "readv", "write", "writev",
        ],
    },
    Group {
        name: "@chown",
        purpose: "owners of files",
        members: &[
            "chown", "fchown", "fchownat", "lchown",
        ],
    },
    Group {
        name: "@clock",
        purpose: "setting the time",
        members: &[
            "adjtimex", "clock_adjtime", "clock_settime", "settimeofday",
        ],
    },
    Group {
        name: "@cpu-emulation",
        purpose: "emulating processors",
        members: &[
            "modify_ldt",
        ],
    },
    Group {
        name: "@debug",
        purpose: "tracing, performance counters",
        members: &[
            "lookup_dcookie", "perf_event_open", "pidfd_getfd", "ptrace",
        ],
    },
    Group {
        name: "@default",
        purpose: "what every process needs",
        members: &[
            "arch_prctl", "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "execve", "exit", "exit_group",
            "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area",
            "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getrandom",
            "getresgid", "getresuid", "getrlimit", "getsid", "gettid", "gettimeofday", "getuid", "map_shadow_stack",
            "membarrier", "mmap", "mprotect", "mseal", "munmap", "nanosleep", "pause", "prlimit64", "restart_syscall",
            "rseq", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_thread_area",
            "set_tid_address", "time", "uprobe", "uretprobe",
        ],
    },
    Group {
        name: "@file-system",
        purpose: "files and directories",
        members: &[
            "access", "cachestat", "chdir", "chmod", "close", "creat", "faccessat", "faccessat2", "fallocate",
            "fchdir", "fchmod", "fchmodat", "fchmodat2", "fcntl", "fgetxattr", "file_getattr", "file_setattr",
            "flistxattr", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "ftruncate", "futimesat", "getcwd",
            "getdents", "getdents64", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
            "inotify_rm_watch", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr",
            "lremovexattr", "lsetxattr", "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "open",
            "openat", "openat2", "readlink", "readlinkat", "removexattr", "removexattrat", "rename", "renameat",
            "renameat2", "rmdir", "setxattr", "setxattrat", "stat", "statfs", "statx", "symlink", "symlinkat",
            "truncate", "unlink", "unlinkat", "utime", "utimensat", "utimes",
        ],
    },
    Group {
        name: "@io-event",
        purpose: "waiting for events",
        members: &[
            "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
            "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "poll", "ppoll", "pselect6", "select",
        ],
    },
    Group {
        name: "@ipc",
        purpose: "pipes, shared memory, message queues, other processes' memory",
        members: &[
            "memfd_create", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
            "msgctl", "msgget", "msgrcv", "msgsnd", "pipe", "pipe2", "process_madvise", "process_vm_readv",
            "process_vm_writev", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
        ],
    },
    Group {
        name: "@keyring",
        purpose: "keys of the kernel",
        members: &[
            "add_key", "keyctl", "request_key",
        ],
    },
    Group {
        name: "@memlock",
        purpose: "locking memory",
        members: &[
            "mlock", "mlock2", "mlockall", "munlock", "munlockall",
        ],
    },
    Group {
        name: "@module",
        purpose: "kernel modules",
        members: &[
            "delete_module", "finit_module", "init_module",
        ],
    },
    Group {
        name: "@mount",
        purpose: "mounts and roots",
        members: &[
            "chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
            "open_tree_attr", "pivot_root", "umount2",
        ],
    },
    Group {
        name: "@network-io",
        purpose: "sockets",
        members: &[
            "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
            "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket", "socketpair",
        ],
    },
    Group {
        name: "@obsolete",
        purpose: "old, unusual or not implemented",
        members: &[
            "_sysctl", "afs_syscall", "create_module", "get_kernel_syms", "getpmsg", "nfsservctl", "putpmsg",
            "query_module", "security", "sysfs", "tuxcall", "uselib", "ustat", "vserver",
        ],
    },
    Group {
        name: "@pkey",
        purpose: "memory protection keys",
        members: &[
            "pkey_alloc", "pkey_free", "pkey_mprotect",
        ],
    },
    Group {
        name: "@privileged",
        purpose: "what needs a capability",
        members: &[
            "@chown", "@clock", "@module", "@raw-io", "@reboot", "@swap", "_sysctl", "acct", "bpf", "capset",
            "chroot", "fanotify_init", "fanotify_mark", "nfsservctl", "open_by_handle_at", "pivot_root", "quotactl",
            "quotactl_fd", "setdomainname", "setfsuid", "setgroups", "sethostname", "setresuid", "setreuid", "setuid",
            "vhangup",
        ],
    },
    Group {
        name: "@process",
        purpose: "processes and namespaces",
        members: &[
            "capget", "clone", "clone3", "execveat", "fork", "getrusage", "kill", "pidfd_open", "pidfd_send_signal",
            "prctl", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setns", "tgkill", "times", "tkill", "unshare", "vfork",
            "wait4", "waitid",
        ],
    },
    Group {
        name: "@raw-io",
        purpose: "ports of devices",
        members: &[
            "ioperm", "iopl",
        ],
    },
    Group {
        name: "@reboot",
        purpose: "reboot and kexec",
        members: &[
            "kexec_file_load", "kexec_load", "reboot",
        ],
    },
    Group {
        name: "@resources",
        purpose: "priorities, limits, placement of memory",
        members: &[
            "ioprio_set", "mbind", "migrate_pages", "move_pages", "sched_setaffinity", "sched_setattr",
            "sched_setparam", "sched_setscheduler", "set_mempolicy", "set_mempolicy_home_node", "setpriority",
            "setrlimit",
        ],
    },
    Group {
        name: "@sandbox",
        purpose: "giving up rights",
        members: &[
            "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp",
        ],
    },
    Group {
        name: "@setuid",
        purpose: "user and group ids",
        members: &[
            "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid",
        ],
    },
    Group {
        name: "@signal",
        purpose: "handling of signals",
        members: &[
            "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack",
            "signalfd", "signalfd4",
        ],
    },
    Group {
        name: "@swap",
        purpose: "swap devices",
        members: &[
            "swapoff", "swapon",
        ],
    },
    Group {
        name: "@sync",
        purpose: "writing back to storage",
        members: &[
            "fdatasync", "fsync", "msync", "sync", "sync_file_range", "syncfs",
        ],
    },
    Group {
        name: "@system-service",
        purpose: "what services of a system need",
        members: &[
            "@aio", "@basic-io", "@chown", "@default", "@file-system", "@io-event", "@ipc", "@keyring", "@memlock",
            "@network-io", "@process", "@resources", "@setuid", "@signal", "@sync", "@timer", "capget", "capset",
            "copy_file_range", "fadvise64", "flock", "get_mempolicy", "getcpu", "getpriority", "ioctl", "ioprio_get",
            "kcmp", "madvise", "mremap", "name_to_handle_at", "personality", "readahead", "remap_file_pages",
            "sched_get_priority_max", "sched_get_priority_min", "sched_getattr", "sched_getparam",
            "sched_getscheduler", "sched_rr_get_interval", "sched_yield", "sendfile", "setfsgid", "setfsuid",
            "setpgid", "setsid", "splice", "sysinfo", "tee", "umask", "uname", "userfaultfd", "vmsplice",
        ],
    },
    Group {
        name: "@timer",
        purpose: "timers",
        members: &[
            "alarm", "getitimer", "setitimer", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
            "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime", "times",
        ],
    },
];

/// The names of all groups.
pub(crate) fn group_names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|group| group.name).chain([FOREIGN, KNOWN])
}

/// The numbers of the calls in a group, ascending; `None` where there is no such group. `@foreign` has none.
#[must_use]
pub fn members(name: &str) -> Option<Vec<u16>> {
    if name == KNOWN {
        return Some(syscall::all().map(|(number, _)| number).collect());
    }
    if name == FOREIGN {
        return Some(Vec::new());
    }
    let group = GROUPS.iter().find(|group| group.name == name)?;
    let mut numbers: Vec<u16> = group
        .members
        .iter()
        .flat_map(|member| match members(member) {
            Some(numbers) => numbers,
            None => syscall::number(member).into_iter().collect(),
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_of_a_group_is_a_call_or_a_group() {
        for group in GROUPS {
            assert!(group.name.starts_with('@') && !group.members.is_empty(), "{}", group.name);
            for member in group.members {
                assert!(members(member).is_some() || syscall::number(member).is_some(), "{}: {member}", group.name);
            }
            assert!(group.members.is_sorted(), "{}", group.name);
        }
        assert!(GROUPS.is_sorted_by_key(|group| group.name));
    }

    fn holds(group: &str, name: &str) -> bool {
        let number = syscall::number(name).unwrap_or_else(|| panic!("no call {name}"));
        members(group).expect("a group").contains(&number)
    }

    #[test]
    fn an_agent_has_what_ordinary_programs_need() {
        let needed = "clone clone3 vfork execve execveat wait4 waitid rseq statx openat2 close_range memfd_create membarrier \
             sched_getaffinity sched_setaffinity sched_setscheduler prlimit64 landlock_create_ruleset pidfd_open \
             pidfd_send_signal faccessat2 epoll_pwait2 copy_file_range getrandom mremap madvise mincore io_setup \
             setpriority ioprio_set inotify_init1 timerfd_create signalfd4 eventfd2 set_robust_list futex_waitv flock \
             fallocate sendfile splice pkey_alloc shmget unshare prctl capset seccomp ioctl uname sysinfo umask \
             setsid get_mempolicy mbind fchmodat2 utimensat renameat2 exit_group kcmp process_madvise";
        for name in needed.split_whitespace() {
            assert!(holds(AGENT, name), "@agent lacks {name}");
        }
    }

    #[test]
    fn an_agent_has_no_call_that_changes_the_machine() {
        let denied = ["@mount", "@module", "@raw-io", "@reboot", "@swap", "@clock", "@keyring", "@debug", "@obsolete"];
        let agent = members(AGENT).expect("a group");
        for group in denied {
            for number in members(group).expect("a group") {
                assert!(!agent.contains(&number), "@agent has {:?} of {group}", syscall::name(number));
            }
        }
        let calls = "bpf io_uring_setup io_uring_enter io_uring_register process_vm_readv process_vm_writev userfaultfd \
             personality modify_ldt syslog acct quotactl setns mq_open mq_unlink open_by_handle_at name_to_handle_at fanotify_init";
        for name in calls.split_whitespace() {
            assert!(!holds(AGENT, name), "@agent has {name}");
        }
    }
}
