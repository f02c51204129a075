//! Making mapped memory executable, or executable memory writable. Memory of a file that was written to, or can be, is no
//! longer what a rule for the file speaks of: it is judged as anonymous memory.

use super::file_open::{FMODE_NOACCOUNT, file_text};
use super::mmap_file::{PROT_EXEC, PROT_WRITE, judge, memory};
use crate::kernel::{self, Kernel, address, load, offset, read};
use crate::operation::{earlier, guard};
use crate::path::{Named, place_at};
use agent_monitor_common::class::Class;
use agent_monitor_common::field::MISSING;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/fs.h`: the lower bit from 6.14 on (and in later 6.12), the upper one before. What else the other bit may
/// say there (parallel direct writes, no notifications) makes no difference: a file that is mapped and has
/// [`FMODE_NOACCOUNT`] is a backing file.
const FMODE_BACKING: u32 = 1 << 24 | 1 << 25;
// `include/linux/mm.h`
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
            } else if is_backing(mapped) {
                // The file below an overlay's, which knows the path that it was mapped by.
                let path = place_at(address(mapped, &kernel::BACKING_FILE_PATH));
                operation.object_at(path, Named::Path)
            } else {
                file_text(operation, mapped, load(mapped, &kernel::FILE_F_INODE))
            };
            judge(operation, object);
            true
        },
    )
}

/// Whether an open file is the one below an overlay's, and knows the path of that.
#[inline(always)]
fn is_backing(open: Kernel) -> bool {
    let mode: u32 = load(open, &kernel::FILE_F_MODE);
    offset(&kernel::BACKING_FILE_PATH) != MISSING as usize && mode & FMODE_NOACCOUNT != 0 && mode & FMODE_BACKING != 0
}
