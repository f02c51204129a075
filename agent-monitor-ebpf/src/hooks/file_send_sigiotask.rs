//! Signals about files: none reaches the monitor. This runs in whatever task an event meets, so it is not known whose the
//! file is: there is no agent, no policy and no record, and the denial is counted for the node alone. Who may name a
//! receiver is judged in `file_fcntl.rs` and `file_ioctl.rs`.

use crate::emit::count_verdict;
use crate::operation::{EACCES, earlier};
use crate::task::is_monitor;
use agent_monitor_common::class::{Builtin, Class, Reason, Verdict};
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "file_send_sigiotask")]
fn file_send_sigiotask(ctx: LsmContext) -> i32 {
    let previous: i32 = ctx.arg(3);
    if previous != 0 {
        return earlier(previous);
    }
    if !is_monitor(ctx.arg(0)) {
        return 0;
    }
    count_verdict(0, Class::Privilege as u8, Verdict::Deny, Reason::Builtin as u8, Builtin::Monitor as u8);
    -EACCES
}
