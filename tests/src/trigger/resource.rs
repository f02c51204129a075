//! Steps on the limits and priorities of another process; each sets what is there, or what is the rule.

use super::sys::check;

/// Best effort, level 4 (`include/uapi/linux/ioprio.h`): what every process has.
const IO_PRIORITY: i32 = 2 << 13 | 4;
const IOPRIO_WHO_PROCESS: i32 = 1;

/// The steps, by name; the word after is the process.
pub const STEPS: &[super::Row] = &[
    ("limit", |_, words| {
        let pid = words.number(1) as i32;
        // SAFETY: the structure lives during the calls.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            check(libc::prlimit(pid, libc::RLIMIT_CORE, std::ptr::null(), &raw mut limit))?;
            check(libc::prlimit(pid, libc::RLIMIT_CORE, &raw const limit, std::ptr::null_mut()))
        }
    }),
    // SAFETY: takes numbers.
    ("priority", |_, words| check(unsafe { libc::setpriority(libc::PRIO_PROCESS, words.number(1) as u32, 0) })),
    ("io-priority", |_, words| {
        // SAFETY: takes numbers.
        check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, words.number(1), IO_PRIORITY) })
    }),
    ("scheduler", |_, words| {
        // SAFETY: the structure lives during the call.
        unsafe {
            let parameters: libc::sched_param = std::mem::zeroed();
            check(libc::sched_setscheduler(words.number(1) as i32, libc::SCHED_OTHER, &raw const parameters))
        }
    }),
    ("processors", |_, words| {
        // SAFETY: the set is as long as is said.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            (0..64).for_each(|cpu| libc::CPU_SET(cpu, &mut set));
            check(libc::sched_setaffinity(words.number(1) as i32, size_of_val(&set), &raw const set))
        }
    }),
    ("migrate", |_, words| {
        let nodes = 1_u64;
        // SAFETY: both sets are one word.
        let moved =
            unsafe { libc::syscall(libc::SYS_migrate_pages, words.number(1), 64, &raw const nodes, &raw const nodes) };
        check(moved).map(|_| 0)
    }),
];
