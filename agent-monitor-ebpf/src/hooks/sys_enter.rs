//! Each system call of agents whose policy asks for it. A tracepoint can't refuse a call, so what is not allowed ends the
//! process; the call may still be carried out. Attached only while the policy of some agent asks for it.

use crate::gate::{self, Gate};
use crate::image::Image;
use crate::kernel::{self, load};
use crate::operation::guard;
use crate::path::operand;
use crate::task::current;
use agent_monitor_common::class::{Class, USE};
use agent_monitor_common::decide::OwnEntry;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::image::{ReadImage, at, syscalls};
use agent_monitor_common::syscall::{self, Abi, X32_BIT};
use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

/// `arch/x86/include/asm/thread_info.h`: set in `thread_info.status` during a 32-bit call.
const TS_COMPAT: u32 = 2;
const SIGKILL: u32 = 9;

#[btf_tracepoint(function = "sys_enter")]
fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    // Only who has such a policy goes on: nobody is killed for a fault of the binding or the image.
    let Gate::Agent(binding, _) = gate::enter() else {
        return 0;
    };
    let Some(image) = Image::of(binding.slot) else {
        return 0;
    };
    if image.word(at::SYSCALLS) & syscalls::KILL == 0 {
        return 0;
    }
    let mut judged = false;
    let denied = guard(
        HookId::SysEnter,
        Class::Syscall,
        0,
        #[inline(always)]
        |operation| {
            let number: u64 = ctx.arg(1);
            let number = number as u32;
            let status: u32 = load(current(), &kernel::TASK_STATUS);
            let abi = if status & TS_COMPAT != 0 {
                Abi::I386
            } else if number & X32_BIT != 0 {
                Abi::X32
            } else {
                Abi::Native
            };
            let bytes = syscall::operand(abi, if status & TS_COMPAT != 0 { number } else { number & !X32_BIT });
            let object = operand(operation.scratch.object(), bytes);
            let object = operation.set_object(object);
            operation.judge(Class::Syscall, object, OwnEntry::default(), USE);
            judged = true;
            true
        },
    );
    if denied != 0 && judged {
        // SAFETY: the helper takes a number.
        unsafe { bpf_send_signal(SIGKILL) };
    }
    0
}
