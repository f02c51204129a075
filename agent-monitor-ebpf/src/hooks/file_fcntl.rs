//! Who gets the signals about a file: judged where it is set, because the hook that sees them sent runs in whatever task
//! the event meets. And leases and delegations, which make others wait for the file, and that one that was opened to append
//! (standard output, into a log) is written elsewhere: they need `write`.
//!
//! A terminal sends them to the processes in its foreground, whoever they are (`__tty_fasync()` in
//! `drivers/tty/tty_io.c`). Of any file it may be somebody outside who was named before the file was handed on, and is asked
//! nothing any more (`sigio_perm()` in `fs/fcntl.c` takes the credentials of then). That there are signals, and which, is the
//! caller's choice: judged as well.

use super::file_ioctl::{judge_owner, signals_another};
use super::file_open::judge_open;
use crate::kernel::{self, Kernel, load};
use crate::operation::{earlier, guard};
use crate::task::{current, id_in_own_namespace, leader};
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

// `include/uapi/asm-generic/fcntl.h`
const F_SETOWN: u32 = 8;
const F_SETOWN_EX: u32 = 15;
const F_SETFL: u32 = 4;
const F_SETSIG: u32 = 10;
const O_ASYNC: u64 = 0o20_000;
const O_APPEND: u64 = 0o2000;
const F_SETLEASE: u32 = 1024;
/// From 6.19 on; which lease is meant stands in the caller's memory.
const F_SETDELEG: u32 = 1040;
const F_UNLCK: u32 = 2;
/// Signals about a directory.
const F_NOTIFY: u32 = 1026;

#[lsm(hook = "file_fcntl")]
fn file_fcntl(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(1);
    let argument: u64 = ctx.arg(2);
    let writes = match command {
        F_SETLEASE => argument as u32 != F_UNLCK,
        F_SETDELEG => true,
        F_SETFL => argument & O_APPEND == 0 && appends(ctx.arg(0)),
        _ => false,
    };
    if writes {
        let result = guard(
            HookId::FileFcntl,
            Class::File,
            ctx.arg(3),
            #[inline(always)]
            |operation| {
                judge_open(operation, ctx.arg(0), file::WRITE);
                true
            },
        );
        if result != 0 {
            return result;
        }
    }
    match command {
        F_SETOWN if argument as u32 != 0 && argument as u32 != id_in_own_namespace(leader(current())) => {
            judge_owner(HookId::FileFcntl, ctx.arg(3), argument & 0xffff_ffff)
        }
        // The number of the process is in the caller's memory, where it may change after it was looked at.
        F_SETOWN_EX => judge_owner(HookId::FileFcntl, ctx.arg(3), 0),
        F_SETFL if argument & O_ASYNC != 0 => judge_signals(&ctx),
        F_SETSIG if argument as u32 != 0 => judge_signals(&ctx),
        F_NOTIFY => judge_signals(&ctx),
        _ => earlier(ctx.arg(3)),
    }
}

/// Whether what is written goes to the end of an open file, as whoever opened it wants it.
#[inline(always)]
fn appends(open: Kernel) -> bool {
    u64::from(load::<u32>(open, &kernel::FILE_F_FLAGS)) & O_APPEND != 0
}

/// Judges signals that may go to somebody else.
#[inline(always)]
fn judge_signals(ctx: &LsmContext) -> i32 {
    if signals_another(ctx.arg(0)) { judge_owner(HookId::FileFcntl, ctx.arg(3), 0) } else { earlier(ctx.arg(3)) }
}
