//! Opens of files, and of what an exec reads: the program, the interpreter of a script, the loader.

use super::guarded_file_system;
use crate::kernel::{self, Kernel, address, load};
use crate::operation::{Operation, Outcome, guard};
use crate::path::{anonymous, nameless, place_at};
use agent_monitor_common::class::{Class, Fault, USE, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/fs.h`: what an open file may be used for, and that it is counted nowhere (a backing file).
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
const FMODE_NOACCOUNT: u32 = 1 << 29;
/// `__FMODE_EXEC`: opened by exec.
const FMODE_EXEC: u32 = 1 << 5;
const SB_KERNMOUNT: u64 = 1 << 22;

#[lsm(hook = "file_open")]
fn file_open(ctx: LsmContext) -> i32 {
    guard(HookId::FileOpen, Class::File, ctx.arg(1), |operation| judge(operation, ctx.arg(0)))
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, open: Kernel) -> Option<Outcome> {
    let flags: u32 = load(open, &kernel::FILE_F_FLAGS);
    let mode: u32 = load(open, &kernel::FILE_F_MODE);
    let inode: Kernel = load(open, &kernel::FILE_F_INODE);
    let superblock: Kernel = load(inode, &kernel::INODE_SB);
    let super_flags: u64 = load(superblock, &kernel::SUPER_FLAGS);
    if mode & FMODE_NOACCOUNT != 0 && super_flags & SB_KERNMOUNT == 0 {
        // The backing file of an overlay file, whose own open was judged.
        return None;
    }
    let (class, access) = if flags & FMODE_EXEC != 0 {
        (Class::Exec, USE)
    } else {
        // An open with access mode 3 may neither read nor write, but needs the permission for both.
        match mode & (FMODE_READ | FMODE_WRITE) {
            FMODE_READ => (Class::File, file::READ),
            FMODE_WRITE => (Class::File, file::WRITE),
            _ => (Class::File, file::READ | file::WRITE),
        }
    };
    let object = match file_text(operation, open, inode) {
        Ok(object) => object,
        Err(fault) => return Some(Outcome::fault(class, access, fault)),
    };
    if access & file::WRITE != 0 && class as u8 == Class::File as u8 {
        if let Some(builtin) = guarded_file_system(load(superblock, &kernel::SUPER_MAGIC)) {
            return Some(Outcome::builtin(class, access, builtin, Some(object)));
        }
    }
    Some(operation.judge_path(class, object, access))
}

/// The operand of an open file: its path, or the word for what kind of nameless object it is.
#[inline(always)]
pub fn file_text(operation: &mut Operation<'_>, open: Kernel, inode: Kernel) -> Result<crate::image::Text, Fault> {
    let place = place_at(address(open, &kernel::FILE_F_PATH)).ok_or(Fault::PathUnreadable)?;
    // SAFETY: a load through a pointer that the verifier tracks.
    let dentry: Kernel = unsafe {
        core::ptr::read_volatile(
            open.byte_add(kernel::offset(&kernel::FILE_F_PATH) + kernel::offset(&kernel::PATH_DENTRY)).cast(),
        )
    };
    match nameless(inode, dentry, place.mount) {
        Some(word) => Ok(anonymous(&mut operation.scratch.object, word)),
        None => operation.path(place),
    }
}
