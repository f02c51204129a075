//! Creation of the anonymous files that are powers: io_uring, userfaultfd, secret memory. All others are let pass.

use super::power;
use crate::kernel::{self, Kernel, address, read};
use crate::operation::guard;
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// The first bytes of the names that `fs/userfaultfd.c`, `io_uring/io_uring.c` and `mm/secretmem.c` give.
const URING: u64 = u64::from_le_bytes(*b"[io_urin");
const USERFAULTFD: u64 = u64::from_le_bytes(*b"[userfau");
const SECRETMEM: u64 = u64::from_le_bytes(*b"[secretm");

#[lsm(hook = "inode_init_security_anon")]
fn inode_init_security_anon(ctx: LsmContext) -> i32 {
    guard(
        HookId::InodeInitSecurityAnon,
        Class::Privilege,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let name: Kernel = ctx.arg(1);
            // All names are at least as long as this, and what is read behind the end of a shorter one is not used.
            let start: u64 = read(read(address(name, &kernel::QSTR_NAME)));
            let privilege = match start {
                URING => Privilege::IoUring,
                USERFAULTFD => Privilege::Userfaultfd,
                SECRETMEM => Privilege::Secretmem,
                _ => return false,
            };
            power::judge(operation, privilege);
            true
        },
    )
}
