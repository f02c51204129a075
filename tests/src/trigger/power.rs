//! Steps that need a power of the kernel's: each tried in a way that changes nothing where it works, or only the child
//! that it is tried in.

use super::sys::{Done, check, descriptor, errno};

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    ("filter", |_, words| filter(words.text(1) == "prctl")),
    // Opens a file as it is and then as user 1, in a child.
    ("open-and-as-user", |_, words| {
        let path = words.path(1);
        in_child(|| {
            // SAFETY: the path ends with NUL; takes a number.
            unsafe {
                libc::open(path.as_ptr(), libc::O_RDONLY);
                if libc::setuid(1) < 0 {
                    return -1;
                }
                libc::open(path.as_ptr(), libc::O_RDONLY).into()
            }
        })
    }),
    ("sethostname", |_, _| {
        in_child(|| {
            let mut name = [0 as libc::c_char; 65];
            // SAFETY: the buffer is as long as is said, and holds the name that the host has.
            unsafe {
                libc::gethostname(name.as_mut_ptr(), name.len());
                libc::sethostname(name.as_ptr(), libc::strlen(name.as_ptr())).into()
            }
        })
    }),
    // SAFETY: the path ends with NUL; only the child changes its root.
    ("chroot", |_, words| in_child(|| unsafe { libc::chroot(words.path(1).as_ptr()) }.into())),
    ("mount", |_, words| {
        in_child(|| {
            let (path, kind) = (words.path(1), c"tmpfs");
            // SAFETY: texts end with NUL; what is mounted is taken away again.
            unsafe {
                let mounted = libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null());
                if mounted == 0 {
                    libc::umount2(path.as_ptr(), libc::MNT_DETACH);
                }
                mounted.into()
            }
        })
    }),
    ("mount-kind", |_, words| {
        in_child(|| {
            let (kind, path) = (words.path(1), words.path(2));
            // SAFETY: texts end with NUL; what is mounted is taken away again.
            unsafe {
                let mounted = libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null());
                if mounted == 0 {
                    libc::umount2(path.as_ptr(), libc::MNT_DETACH);
                }
                mounted.into()
            }
        })
    }),
    ("bind-mount", |_, words| {
        in_child(|| {
            let (from, to) = (words.path(1), words.path(2));
            // SAFETY: texts end with NUL; what is mounted is taken away again.
            unsafe {
                let mounted =
                    libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null());
                if mounted == 0 {
                    libc::umount2(to.as_ptr(), libc::MNT_DETACH);
                }
                mounted.into()
            }
        })
    }),
    // SAFETY: the text ends with NUL.
    ("fsopen", |_, _| in_child(|| unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0) })),
    ("open-tree", |_, _| {
        in_child(|| {
            const OPEN_TREE_CLONE: i32 = 1;
            // SAFETY: the text ends with NUL.
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/tmp".as_ptr(), OPEN_TREE_CLONE) }
        })
    }),
    // SAFETY (and below): takes numbers; only the child is in the new namespace.
    ("unshare", |_, words| {
        in_child(|| {
            let flags = match words.text(1).as_str() {
                "mount" => libc::CLONE_NEWNS,
                "net" => libc::CLONE_NEWNET,
                "uts" => libc::CLONE_NEWUTS,
                "ipc" => libc::CLONE_NEWIPC,
                "pid" => libc::CLONE_NEWPID,
                "time" => CLONE_NEWTIME,
                "user" => libc::CLONE_NEWUSER,
                _ => libc::CLONE_NEWCGROUP,
            };
            // SAFETY: see above.
            unsafe { libc::unshare(flags) }.into()
        })
    }),
    ("clone-user", |_, _| {
        in_child(|| {
            let (flags, none) = (libc::CLONE_NEWUSER | libc::SIGCHLD, std::ptr::null_mut::<libc::c_void>());
            // SAFETY: without a stack and CLONE_VM it is a fork; the child of it ends at once.
            unsafe {
                let pid = libc::syscall(libc::SYS_clone, flags, none, none, none, none);
                if pid == 0 {
                    libc::_exit(0);
                }
                if pid > 0 {
                    libc::waitpid(pid as i32, std::ptr::null_mut(), 0);
                }
                pid
            }
        })
    }),
    ("setns", |held, words| {
        let namespace = held.get(words, 1)?;
        // SAFETY: see above.
        in_child(|| unsafe { libc::setns(namespace, 0) }.into())
    }),
    // SAFETY: the same root as before; it ends with an error of the arguments where it would be allowed.
    ("pivot-root", |_, _| in_child(|| unsafe { libc::syscall(libc::SYS_pivot_root, c"/".as_ptr(), c"/tmp".as_ptr()) })),
    ("bpf", |_, _| {
        in_child(|| {
            #[repr(C)]
            struct MapCreate {
                kind: u32,
                key: u32,
                value: u32,
                entries: u32,
                rest: [u64; 14],
            }
            const BPF_MAP_TYPE_HASH: u32 = 1;
            // A hash map needs CAP_BPF wherever programs of the unprivileged are off.
            let attributes = MapCreate { kind: BPF_MAP_TYPE_HASH, key: 4, value: 4, entries: 1, rest: [0; 14] };
            // SAFETY: the structure is as long as is said.
            unsafe { libc::syscall(libc::SYS_bpf, 0, &raw const attributes, size_of::<MapCreate>()) }
        })
    }),
    ("bpf-next-program", |_, _| {
        in_child(|| {
            let attributes = [0_u32; 4];
            const BPF_PROG_GET_NEXT_ID: i32 = 11;
            // SAFETY: the structure is as long as is said.
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_NEXT_ID, &raw const attributes, 16) }
        })
    }),
    // A descriptor of the first `map`, `program` or `link` that there is, whoever's.
    ("bpf-first", |_, words| {
        let (next, get) = match words.text(1).as_str() {
            "program" => (11, 13),
            "map" => (12, 14),
            _ => (31, 30),
        };
        let mut attributes = [0_u32; 4];
        // SAFETY: the structure is as long as is said.
        check(unsafe { libc::syscall(libc::SYS_bpf, next, attributes.as_mut_ptr(), 16) })?;
        let id = [attributes[1], 0, 0, 0];
        // SAFETY: the structure is as long as is said.
        descriptor(unsafe { libc::syscall(libc::SYS_bpf, get, id.as_ptr(), 16) } as i32).map(|_| 0)
    }),
    ("bpf-pin", |_, words| {
        const BPF_OBJ_GET: i32 = 7;
        let path = words.path(1);
        let attributes = [path.as_ptr() as u64, 0];
        // SAFETY: the structure is as long as is said, and the path lives during the call.
        descriptor(unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, attributes.as_ptr(), 16) } as i32).map(|_| 0)
    }),
    ("settime", |_, _| {
        in_child(|| {
            // SAFETY: the structure lives during the calls; the time that is set is the time that is.
            unsafe {
                let mut now: libc::timespec = std::mem::zeroed();
                libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
                libc::clock_settime(libc::CLOCK_REALTIME, &raw const now).into()
            }
        })
    }),
    // SAFETY: an unknown command: the right is asked for first, and nothing happens.
    ("reboot", |_, _| {
        in_child(|| {
            // SAFETY: the call takes numbers only.
            unsafe { libc::syscall(libc::SYS_reboot, 0xfee1_dead_u32, 672_274_793, 0x89ab_cdef_u32, 0) }
        })
    }),
    // SAFETY: no file of this name is there.
    ("swapon", |_, _| in_child(|| unsafe { libc::syscall(libc::SYS_swapon, c"/no-such-file".as_ptr(), 0) })),
    // SAFETY: no bytes are no module.
    ("init-module", |_, _| {
        in_child(|| {
            // SAFETY: no bytes are read from the module, and the text is a constant.
            unsafe { libc::syscall(libc::SYS_init_module, std::ptr::null::<u8>(), 0, c"".as_ptr()) }
        })
    }),
    ("open-by-handle", |_, words| {
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            handle: [u8; 128],
        }
        let (path, mut mount) = (words.path(1), 0_i32);
        let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
        let at = libc::AT_FDCWD;
        // SAFETY: the text ends with NUL, the structures have the size that they say.
        unsafe {
            check(libc::syscall(libc::SYS_name_to_handle_at, at, path.as_ptr(), &raw mut handle, &raw mut mount, 0))?;
            let mount = descriptor(libc::open(c"/tmp".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC))?;
            use std::os::fd::AsRawFd;
            let opened = libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, libc::O_RDONLY);
            descriptor(opened as i32).map(|_| 0)
        }
    }),
];

/// `include/uapi/linux/sched.h`
const CLONE_NEWTIME: i32 = 0x80;

/// Takes on a filter that allows all calls, by one of the calls for that, in a child without `no_new_privs`.
fn filter(by_prctl: bool) -> Done {
    // BPF_RET | BPF_K, SECCOMP_RET_ALLOW
    let mut allow = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    in_child(|| {
        let filter = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the program lives during the call.
        unsafe {
            if by_prctl {
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program).into()
            } else {
                libc::syscall(libc::SYS_seccomp, filter, 0, &raw const program)
            }
        }
    })
}

/// Does it in a child and gives its errno, so that this process stays as it is.
pub fn in_child(call: impl FnOnce() -> i64) -> Done {
    // SAFETY: this process has one thread; the child makes its call and ends.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    if pid == 0 {
        let status = if call() < 0 { errno() } else { 0 };
        // SAFETY: runs nothing of the parent's.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: a number to write to.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    match libc::WEXITSTATUS(status) {
        0 => Ok(0),
        errno => Err(errno),
    }
}
