//! Executable mappings of files and of anonymous memory.

use super::file_open::file_text;
use crate::image::Text;
use crate::kernel::{self, Kernel, load, read};
use crate::operation::{Operation, earlier, guard};
use crate::path::{Named, nameless_text};
use crate::scratch::reload;
use agent_monitor_common::class::{Class, Fault, Reason, USE, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/asm-generic/mman-common.h`
/// Memory that can be written.
pub const PROT_WRITE: u64 = 2;
/// Memory that can be executed.
pub const PROT_EXEC: u64 = 4;

#[lsm(hook = "mmap_file")]
fn mmap_file(ctx: LsmContext) -> i32 {
    let protection: u64 = ctx.arg(2);
    if protection & PROT_EXEC == 0 {
        return earlier(ctx.arg(4));
    }
    guard(
        HookId::MmapFile,
        Class::File,
        ctx.arg(4),
        #[inline(always)]
        |operation| {
            // VERIFIER: the file of anonymous memory is NULL, which the verifiers of 6.2 to 6.18 don't know: they would
            // drop the check of the pointer. So the argument is read as a number first.
            let present = read::<u64>(ctx.as_ptr() as u64) != 0;
            let mapped: Kernel = ctx.arg(0);
            // What can be written is not what a rule for the file speaks of.
            let object = if !present || mapped.is_null() || protection & PROT_WRITE != 0 {
                Ok(memory(operation))
            } else {
                file_text(operation, mapped, load(mapped, &kernel::FILE_F_INODE))
            };
            judge(operation, object);
            true
        },
    )
}

/// The operand of anonymous memory, as the object.
#[inline(always)]
pub fn memory(operation: &mut Operation<'_>) -> Text {
    let object = nameless_text(operation.scratch.object(), Named::Other);
    operation.set_object(object)
}

/// Judges an executable mapping: `map-exec` by a rule for files; or, where no rule for files speaks of it, the right to
/// execute the object, which is no less power. So what exec itself maps needs no second rule.
#[inline(always)]
pub fn judge(operation: &mut Operation<'_>, object: Result<Text, Fault>) {
    let object = match object {
        Ok(object) => object,
        Err(fault) => {
            operation.fault(Class::File, file::MAP_EXEC, fault);
            return;
        }
    };
    if operation.judge_path(Class::File, object, file::MAP_EXEC)
        || reload(&operation.scratch.header.reason) != Reason::NoRule as u8
    {
        return;
    }
    let labels = operation.scratch.header.labels;
    let executable = operation.judge_path(Class::Exec, object, USE);
    operation.scratch.header.labels = labels;
    let reason = if executable { Reason::AllowRule } else { Reason::NoRule };
    operation.note(Class::File, file::MAP_EXEC, reason, 0);
}
