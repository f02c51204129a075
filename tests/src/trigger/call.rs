//! Steps that are single system calls without an object, each in a way that changes nothing.

use super::sys::{Done, check, descriptor};

/// The steps, by name.
pub const STEPS: &[super::Row] = &[
    // SAFETY: asks for the value and changes none.
    ("personality", |_, _| check(unsafe { libc::personality(0xffff_ffff) })),
    ("keyctl", |_, _| {
        const KEYCTL_GET_KEYRING_ID: i32 = 0;
        const KEY_SPEC_PROCESS_KEYRING: i32 = -2;
        // SAFETY: takes numbers; the process gets a keyring that ends with it.
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1) }).map(|_| 0)
    }),
    ("io-uring-setup", |_, _| {
        let mut params = [0_u32; 30];
        // SAFETY: the structure has 120 bytes.
        descriptor(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) } as i32).map(|_| 0)
    }),
    // SAFETY: takes nothing; the numbers that are of no kernel are refused.
    ("call", |_, words| check(unsafe { libc::syscall(words.number(1)) })),
    ("call-i386", |_, words| foreign(words.number(1))),
    // SAFETY: takes nothing.
    ("call-x32", |_, words| check(unsafe { libc::syscall(words.number(1) | 1 << 30) })),
];

/// A 32-bit call without arguments.
fn foreign(number: i64) -> Done {
    let mut result = number;
    // SAFETY: the call takes nothing, and the kernel keeps all registers but those named.
    unsafe {
        core::arch::asm!("int 0x80", inout("rax") result, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    let result = i64::from(result as i32);
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result) }
}
