//! Making mapped memory executable, or executable memory writable. Memory of a file that was written to, or can be, is no
//! longer what a rule for the file speaks of: it is judged as anonymous memory.

use super::file_open::file_text;
use super::mmap_file::{PROT_EXEC, PROT_WRITE, judge, memory};
use crate::kernel::{self, Kernel, address, load, read};
use crate::operation::{earlier, guard};
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/mm.h`
const VM_WRITE: u64 = 2;
const VM_EXEC: u64 = 4;

#[lsm(hook = "file_mprotect")]
fn file_mprotect(ctx: LsmContext) -> i32 {
    let protection: u64 = ctx.arg(2);
    if protection & PROT_EXEC == 0 {
        return earlier(ctx.arg(3));
    }
    guard(
        HookId::FileMprotect,
        Class::File,
        ctx.arg(3),
        #[inline(always)]
        |operation| {
            let area: Kernel = ctx.arg(0);
            let flags: u64 = load(area, &kernel::VMA_FLAGS);
            let writable = protection & PROT_WRITE != 0;
            if flags & VM_EXEC != 0 && (!writable || flags & VM_WRITE != 0) {
                return false;
            }
            let mapped: Kernel = load(area, &kernel::VMA_FILE);
            // VERIFIER: read as a number, because the compiler computes with it.
            let written: u64 = read(address(area, &kernel::VMA_ANONYMOUS));
            let object = if mapped.is_null() || writable || written != 0 {
                Ok(memory(operation))
            } else {
                file_text(operation, mapped, load(mapped, &kernel::FILE_F_INODE))
            };
            judge(operation, object);
            true
        },
    )
}
