//! Executable mappings of files and of anonymous memory.

use super::file_open::file_text;
use crate::image::Text;
use crate::kernel::{self, Kernel, load, read};
use crate::operation::{Operation, Outcome, guard};
use crate::path::anonymous;
use agent_monitor_common::class::{Class, Fault, Reason, USE, file};
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::anonymous::OTHER;
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `PROT_EXEC`
pub const PROT_EXEC: u64 = 4;

#[lsm(hook = "mmap_file")]
fn mmap_file(ctx: LsmContext) -> i32 {
    let protection: u64 = ctx.arg(2);
    if protection & PROT_EXEC == 0 {
        return ctx.arg(4);
    }
    guard(HookId::MmapFile, Class::File, ctx.arg(4), |operation| {
        // The file of anonymous memory is NULL, which the verifiers of 6.2 to 6.18 don't know: they would drop the check
        // of the pointer. So the argument is read as a number first.
        let present = read::<u64>(ctx.as_ptr() as u64).unwrap_or(0) != 0;
        let mapped: Kernel = ctx.arg(0);
        if !present || mapped.is_null() {
            let object = anonymous(&mut operation.scratch.object, OTHER);
            return Some(judge(operation, Ok(object)));
        }
        let object = file_text(operation, mapped, load(mapped, &kernel::FILE_F_INODE));
        Some(judge(operation, object))
    })
}

/// Judges an executable mapping: `map-exec` by a rule for files; or, where no rule for files speaks of it, the right to
/// execute the object, which is no less power. So what exec itself maps needs no second rule.
#[inline(always)]
pub fn judge(operation: &mut Operation<'_>, object: Result<Text, Fault>) -> Outcome {
    let object = match object {
        Ok(object) => object,
        Err(fault) => return Outcome::fault(Class::File, file::MAP_EXEC, fault),
    };
    let outcome = operation.judge_path(Class::File, object, file::MAP_EXEC);
    if outcome.reason as u8 == Reason::NoRule as u8 {
        let exec = operation.judge_path(Class::Exec, object, USE);
        if exec.allowed() {
            return Outcome { reason: Reason::AllowRule, labels: exec.labels, ..outcome };
        }
    }
    outcome
}
