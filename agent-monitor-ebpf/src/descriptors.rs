//! What the running task has open.

use crate::kernel::{self, Kernel, address, offset, read};
use crate::scratch::{Addresses, Scratch, reload};
use crate::task::current;
use aya_ebpf::helpers::generated::bpf_loop;

/// How many descriptors are looked at; what only one beyond has is not found.
const DESCRIPTORS: u32 = 4096;

/// What each step needs; on the stack of the program that loops.
#[repr(C)]
struct Wanted {
    scratch: *mut Scratch,
    inode: u64,
    mode: u64,
}

/// Whether the running task has the file of an inode open for all of `mode`, in one descriptor or several.
#[inline(always)]
pub fn has_open(scratch: &mut Scratch, inode: Kernel, mode: u32) -> bool {
    // Plain addresses, because the files are in an array without a length.
    let files: u64 = read(address(current(), &kernel::TASK_FILES));
    let table: u64 = read(files + offset(&kernel::FILES_TABLE) as u64);
    let size: u32 = read(table + offset(&kernel::TABLE_SIZE) as u64);
    let next: u64 = read(table + offset(&kernel::TABLE_FILES) as u64);
    scratch.addresses = Addresses { next, left: size.into(), decided: 0 };
    let mut wanted = Wanted { scratch: &raw mut *scratch, inode: inode as u64, mode: mode.into() };
    // SAFETY: the callback gets the address of `wanted`, which lives until the helper returns.
    unsafe { bpf_loop(DESCRIPTORS, step as *const () as *mut _, (&raw mut wanted).cast(), 0) };
    reload(&scratch.addresses.decided) & u64::from(mode) == mode.into()
}

/// One descriptor: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn step(index: u32, wanted: *mut Wanted) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the buffer is this program's own.
    let (wanted, addresses) = unsafe { (&*wanted, &mut (*(*wanted).scratch).addresses) };
    if u64::from(index) >= addresses.left {
        return 1;
    }
    let file: u64 = read(addresses.next + 8 * u64::from(index));
    let inode = |file: u64| read::<u64>(file + offset(&kernel::FILE_F_INODE) as u64);
    if file == 0 || inode(file) != wanted.inode {
        return 0;
    }
    let mode: u32 = read(file + offset(&kernel::FILE_F_MODE) as u64);
    // Where another thread has closed it, its memory may be another file's by now.
    if inode(file) == wanted.inode {
        addresses.decided |= u64::from(mode);
    }
    (addresses.decided & wanted.mode == wanted.mode).into()
}
