//! Making mapped memory executable.

use super::file_open::file_text;
use super::mmap_file::{PROT_EXEC, judge, memory};
use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use agent_monitor_common::class::Class;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `VM_EXEC`
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
            if flags & VM_EXEC != 0 {
                return false;
            }
            let mapped: Kernel = load(area, &kernel::VMA_FILE);
            let object = if mapped.is_null() {
                Ok(memory(operation))
            } else {
                file_text(operation, mapped, load(mapped, &kernel::FILE_F_INODE))
            };
            judge(operation, object);
            true
        },
    )
}
