//! Opens of files, and of what an exec reads: the program, the interpreter of a script, the loader.

use super::power::judge_mode;
use super::{BPFFS_MAGIC, on_file_system};
use crate::descriptors::has_open;
use crate::image::Text;
use crate::kernel::{self, Kernel, address, load, offset};
use crate::operation::{Operation, guard};
use crate::path::{MQUEUE, PIDFS, PIPEFS, SB_KERNMOUNT, internal, nameless, place_at};
use crate::scratch::reload;
use agent_monitor_common::class::{Builtin, Class, Fault, Reason, USE, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/linux/fs.h`
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// Counted nowhere, as the kernel's own files are, backing files among them.
pub const FMODE_NOACCOUNT: u32 = 1 << 29;
/// `__FMODE_EXEC`: opened by exec.
const FMODE_EXEC: u32 = 1 << 5;
// `include/uapi/linux/stat.h`
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
/// Makes a file without a name, with the mode of the call.
const O_TMPFILE: u32 = 0o20_000_000;
/// Still set while the hook runs; `do_dentry_open()` clears it afterwards.
const O_TRUNC: u32 = 0o1000;

#[lsm(hook = "file_open")]
fn file_open(ctx: LsmContext) -> i32 {
    guard(
        HookId::FileOpen,
        Class::File,
        ctx.arg(1),
        #[inline(always)]
        |operation| judge(operation, ctx.arg(0)),
    )
}

#[inline(always)]
fn judge(operation: &mut Operation<'_>, open: Kernel) -> bool {
    let flags: u32 = load(open, &kernel::FILE_F_FLAGS);
    let mode: u32 = load(open, &kernel::FILE_F_MODE);
    let inode: Kernel = load(open, &kernel::FILE_F_INODE);
    let superblock: Kernel = load(inode, &kernel::INODE_SB);
    let super_flags: u64 = load(superblock, &kernel::SUPER_FLAGS);
    if super_flags & SB_KERNMOUNT == 0 {
        let mount = place_at(address(open, &kernel::FILE_F_PATH)).mount;
        if mode & FMODE_NOACCOUNT != 0 || internal(mount) {
            // The backing file or directory of an overlay, whose own open was judged: on a mount in no namespace, of a
            // file system that is no internal one.
            return false;
        }
    } else {
        let magic: u64 = load(superblock, &kernel::SUPER_MAGIC);
        if magic == PIDFS {
            // From 6.9 on a pidfd is an open file, before it was none. It holds no data; each power over its process
            // (signals, its descriptors, its memory, its namespaces) is judged where it is used.
            return false;
        }
    }
    // mq_open(2) and some ioctls take the flag from their caller (`do_mq_open()` in `ipc/mqueue.c`, `ptm_open_peer()` in
    // `drivers/tty/pty.c`); exec opens regular files alone, and for reading.
    let kind = u32::from(load::<u16>(inode, &kernel::INODE_MODE)) & S_IFMT;
    if flags & FMODE_EXEC != 0
        && kind == S_IFREG
        && mode & FMODE_WRITE == 0
        && load::<u64>(superblock, &kernel::SUPER_MAGIC) != MQUEUE
    {
        operation.note(Class::Exec, USE, Reason::NoRule, 0);
    } else {
        let access = access_of(mode);
        // From 6.2 on no hook on paths sees this truncation, for which the file need not be open for writing.
        let access = if flags & O_TRUNC != 0 { access | file::WRITE } else { access };
        operation.note(Class::File, access, Reason::NoRule, 0);
    }
    let found = file_text(operation, open, inode);
    let access = reload(&operation.scratch.header.access);
    if reload(&operation.scratch.header.class) == Class::Exec as u8 {
        operation.judge_found_path(Class::Exec, found, access);
        return true;
    }
    operation.judge_found_path(Class::File, found, access);
    if load::<u64>(superblock, &kernel::SUPER_MAGIC) == PIPEFS {
        // By a descriptor's entry in `/proc`. Whoever has one end (standard input) would read or write at the other, which
        // is somebody else's.
        let mode = match load::<u32>(open, &kernel::FILE_F_MODE) & (FMODE_READ | FMODE_WRITE) {
            0 => FMODE_READ | FMODE_WRITE,
            mode => mode,
        };
        if !has_open(operation.scratch, inode, mode) {
            operation.becomes_builtin(Builtin::OtherEnd);
        }
        return true;
    }
    if reload(&operation.scratch.header.access) & file::WRITE != 0 {
        on_file_system(operation, superblock);
    } else if load::<u64>(superblock, &kernel::SUPER_MAGIC) == BPFFS_MAGIC {
        // Reading, too: a lock on the directory of the pins keeps the monitor from starting.
        operation.becomes_builtin(Builtin::Monitor);
    }
    if load::<u32>(open, &kernel::FILE_F_FLAGS) & O_TMPFILE != 0 {
        judge_mode(operation, load::<u16>(inode, &kernel::INODE_MODE).into());
    }
    true
}

/// What an open file may be used for, by its mode.
#[inline(always)]
pub fn access_of(mode: u32) -> u16 {
    // An open with access mode 3 may neither read nor write, but needs the permission for both.
    match mode & (FMODE_READ | FMODE_WRITE) {
        FMODE_READ => file::READ,
        FMODE_WRITE => file::WRITE,
        _ => file::READ | file::WRITE,
    }
}

/// Judges `access` to an open file.
#[inline(always)]
pub fn judge_open(operation: &mut Operation<'_>, open: Kernel, access: u16) {
    let found = file_text(operation, open, load(open, &kernel::FILE_F_INODE));
    operation.judge_found_path(Class::File, found, access);
}

/// The operand of an open file, as the object: its path, or the word for what it is without one.
#[inline(always)]
pub fn file_text(operation: &mut Operation<'_>, open: Kernel, inode: Kernel) -> Result<Text, Fault> {
    let place = place_at(address(open, &kernel::FILE_F_PATH));
    // SAFETY: a load through a pointer that the verifier tracks.
    let dentry: Kernel = unsafe {
        core::ptr::read_volatile(
            open.byte_add(offset(&kernel::FILE_F_PATH)).byte_add(offset(&kernel::PATH_DENTRY)).cast(),
        )
    };
    operation.object_at(place, nameless(inode, dentry, place.mount))
}
