//! Steps on System V memory, messages and semaphores.

use std::ptr::{null, null_mut};

use super::sys::check;

const MODE: i32 = 0o600;

/// `struct msgbuf` with one byte.
#[repr(C)]
struct Message {
    kind: i64,
    text: [u8; 8],
}

/// The steps, by name. Those that make give the id, those that use take it.
pub const STEPS: &[super::Row] = &[
    // SAFETY: takes numbers.
    ("memory-make", |_, _| check(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | MODE) })),
    ("memory-attach", |_, words| {
        // SAFETY: at an address that the kernel chooses, and away again.
        unsafe {
            let at = libc::shmat(words.number(1) as i32, null(), 0);
            check(at as i64)?;
            check(libc::shmdt(at))
        }
    }),
    // SAFETY: no structure is given.
    ("memory-remove", |_, words| check(unsafe { libc::shmctl(words.number(1) as i32, libc::IPC_RMID, null_mut()) })),
    // The call asks about all objects and has none.
    ("memory-limits", |_, _| {
        const IPC_INFO: i32 = 3;
        let mut limits = [0_u64; 16];
        // SAFETY: the buffer is longer than the structure.
        check(unsafe { libc::shmctl(0, IPC_INFO, limits.as_mut_ptr().cast()) }).map(|_| 0)
    }),
    // SAFETY: takes numbers.
    ("queue-make", |_, _| check(unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | MODE) })),
    ("queue-use", |_, words| {
        let (id, mut message) = (words.number(1) as i32, Message { kind: 1, text: [0; 8] });
        // SAFETY: the buffer is as long as is said.
        unsafe {
            check(libc::msgsnd(id, (&raw const message).cast(), message.text.len(), libc::IPC_NOWAIT))?;
            let taken = libc::msgrcv(id, (&raw mut message).cast(), message.text.len(), 0, libc::IPC_NOWAIT);
            check(taken as i64).map(|_| 0)
        }
    }),
    // SAFETY: no structure is given.
    ("queue-remove", |_, words| check(unsafe { libc::msgctl(words.number(1) as i32, libc::IPC_RMID, null_mut()) })),
    // SAFETY: takes numbers.
    ("semaphore-make", |_, _| check(unsafe { libc::semget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | MODE) })),
    ("semaphore-use", |_, words| {
        let mut up = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 };
        // SAFETY: one operation is given.
        check(unsafe { libc::semop(words.number(1) as i32, &raw mut up, 1) })
    }),
    // SAFETY: no structure is given.
    ("semaphore-remove", |_, words| check(unsafe { libc::semctl(words.number(1) as i32, 0, libc::IPC_RMID) })),
];
