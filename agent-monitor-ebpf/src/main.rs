//! The kernel programs. A hook (`hooks/`) translates its arguments to an operation; everything else, who is an agent
//! (`gate`), reading paths (`path`) and addresses (`socket`), judging (`operation`) and telling (`emit`), is here once.
//!
//! No program sleeps: all run in an RCU read section, which is what makes walking names and mounts by hand sound.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics, stmt_expr_attributes)]
#![allow(internal_features, reason = "the BPF target has atomic instructions but no core::sync::atomic with results")]

mod descriptors;
mod emit;
mod fold;
mod gate;
mod hooks;
mod image;
mod kernel;
mod maps;
mod more_rights;
mod mounts;
mod operation;
mod path;
mod peer;
mod scratch;
mod socket;
mod task;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No panic is reachable: the verifier refuses a program with an endless loop in a path that it can take.
    loop {}
}

/// The kernel gives its GPL-only helpers to programs whose licence is compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
