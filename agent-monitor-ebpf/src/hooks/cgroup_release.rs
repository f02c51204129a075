//! A binding that was made while the cgroup's directory was being removed, and that [`cgroup_rmdir`](super::cgroup_rmdir) did
//! not find, ends with the cgroup.

use super::cgroup_rmdir::unbind;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

#[btf_tracepoint(function = "cgroup_release")]
fn cgroup_release(ctx: BtfTracePointContext) -> i32 {
    unbind(ctx.arg(0), HookId::CgroupRelease)
}
