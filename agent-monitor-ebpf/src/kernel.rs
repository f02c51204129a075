//! Fields of kernel structures: their offsets, and the two ways of reading them.

use agent_monitor_common::field::MISSING;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::ffi::c_void;
use core::mem::MaybeUninit;

macro_rules! declare {
    ($($symbol:ident, $structure:literal, $member:literal, $purpose:literal;)+) => {
        $(
            #[doc = $purpose]
            #[unsafe(no_mangle)]
            pub static $symbol: u32 = MISSING;
        )+
    };
}
agent_monitor_common::kernel_fields!(declare);

/// The bit in the byte of [`SOCK_IS_KERNEL`].
#[unsafe(no_mangle)]
pub static SOCK_IS_KERNEL_MASK: u32 = MISSING;

/// Size of `struct upid`.
#[unsafe(no_mangle)]
pub static UPID_BYTES: u32 = MISSING;

/// Values of the kernel's enumerations, see `agent_monitor_common::field::ENUMERATORS`.
pub mod value {
    use super::MISSING;

    macro_rules! declare {
        ($($symbol:ident),+) => {
            $(
                #[unsafe(no_mangle)]
                pub static $symbol: u32 = MISSING;
            )+
        };
    }
    declare!(LOADING_FIRMWARE, LOADING_KEXEC_IMAGE, LOADING_KEXEC_INITRAMFS);
    declare!(READING_FIRMWARE, READING_KEXEC_IMAGE, READING_KEXEC_INITRAMFS);
}

/// A pointer to a kernel structure, as the verifier knows it.
pub type Kernel = *const c_void;

/// The offset that the loader put into `field`. The verifier sees a constant, because read-only data is frozen.
#[inline(always)]
pub fn offset(field: &'static u32) -> usize {
    // SAFETY: reads a static; volatile because the loader overwrites it, which the compiler can't know.
    unsafe { core::ptr::read_volatile(field) as usize }
}

/// Loads a field through a pointer that the verifier tracks: a plain load that reads 0 where the pointer is bad.
#[inline(always)]
pub fn load<T: Copy>(structure: Kernel, field: &'static u32) -> T {
    // SAFETY: the verifier checks type and bounds of the load, and makes it fault-safe (`BPF_PROBE_MEM`).
    unsafe { core::ptr::read_volatile(structure.byte_add(offset(field)).cast()) }
}

/// Reads kernel memory at a plain address: zeros where it can't be read.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper never faults and writes all bytes of `value`, zeros where it fails; all types read here are
    // numbers, or arrays of them, for which zeros are a value.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        value.assume_init()
    }
}

/// The same number, of which the compiler forgets what it knew, so that it keeps a mask that bounds it.
// VERIFIER: it does not see the bounds that the compiler derives from several branches.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: adds nothing. An instruction there must be: two line numbers at one instruction are refused.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) value) };
    value
}

/// The address of a field, as a number that [`read`] takes.
#[inline(always)]
pub fn address(structure: Kernel, field: &'static u32) -> u64 {
    structure as u64 + offset(field) as u64
}
