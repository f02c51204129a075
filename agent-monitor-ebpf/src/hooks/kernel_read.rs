//! What the kernel reads into itself for a program: modules and other kernels. Firmware is not judged: the kernel chooses
//! the file, for a device that the program may use.

use super::power::power;
use crate::kernel::{offset, value};
use crate::operation::earlier;
use agent_monitor_common::hook::HookId;
use agent_monitor_common::name::Privilege;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

#[lsm(hook = "kernel_load_data")]
fn kernel_load_data(ctx: LsmContext) -> i32 {
    let (firmware, kernels) =
        (&value::LOADING_FIRMWARE, [&value::LOADING_KEXEC_IMAGE, &value::LOADING_KEXEC_INITRAMFS]);
    read(HookId::KernelLoadData, ctx.arg(2), ctx.arg(0), firmware, kernels)
}

// The hook's file may be NULL, which the verifier does not know; it is not looked at.
#[lsm(hook = "kernel_read_file")]
fn kernel_read_file(ctx: LsmContext) -> i32 {
    let (firmware, kernels) =
        (&value::READING_FIRMWARE, [&value::READING_KEXEC_IMAGE, &value::READING_KEXEC_INITRAMFS]);
    read(HookId::KernelReadFile, ctx.arg(3), ctx.arg(1), firmware, kernels)
}

/// Judges by what is read: a kernel or its initial file system, or a module. What is neither (certificates, policies of
/// other security modules, what this version does not know) changes the kernel as a module does.
#[inline(always)]
fn read(hook: HookId, previous: i32, what: u32, firmware: &'static u32, kernels: [&'static u32; 2]) -> i32 {
    if what as usize == offset(firmware) {
        return earlier(previous);
    }
    let is_kernel = what as usize == offset(kernels[0]) || what as usize == offset(kernels[1]);
    power(hook, previous, if is_kernel { Privilege::Kexec } else { Privilege::KernelModule })
}
