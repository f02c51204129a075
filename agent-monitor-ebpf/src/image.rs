//! Reading images in the kernel, and running operands through their automata.

use crate::maps::{IMAGES_LARGE, IMAGES_MEDIUM, IMAGES_SMALL, SLOTS};
use crate::scratch::{END, Loop};
use agent_monitor_common::class::OnFault;
use agent_monitor_common::decide::Operand;
use agent_monitor_common::image::{Automaton, ReadImage, at};
use agent_monitor_common::limit::IMAGE_SIZES;
use aya_ebpf::helpers::generated::bpf_loop;

/// A policy's image: the start of a map value, and its size less one.
#[derive(Clone, Copy)]
pub struct Image {
    base: *const u8,
    // VERIFIER: 64 bits wide, so that it stays a known number when it is spilled to the stack and read by a callback.
    mask: u64,
}

impl Image {
    /// The image in `slot`; `None` where there is none.
    #[inline(always)]
    pub fn of(slot: u32) -> Option<Self> {
        match *SLOTS.get(slot)? {
            1 => Some(Self { base: IMAGES_SMALL.get_value(slot, &0)?.as_ptr(), mask: IMAGE_SIZES[0] as u64 - 1 }),
            2 => Some(Self { base: IMAGES_MEDIUM.get_value(slot, &0)?.as_ptr(), mask: IMAGE_SIZES[1] as u64 - 1 }),
            3 => Some(Self { base: IMAGES_LARGE.get_value(slot, &0)?.as_ptr(), mask: IMAGE_SIZES[2] as u64 - 1 }),
            _ => None,
        }
    }

    /// The generation of the policy.
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        u64::from(self.word(at::GENERATION)) | u64::from(self.word(at::GENERATION + 4)) << 32
    }

    /// Whether operations that can't be decided pass.
    #[inline(always)]
    pub fn faults_pass(&self) -> bool {
        self.word(at::ON_FAULT) == OnFault::Allow as u32
    }
}

impl ReadImage for Image {
    #[inline(always)]
    fn byte(&self, offset: u32) -> u8 {
        // SAFETY: masked to the size of the map value.
        unsafe { *self.base.add((u64::from(offset) & self.mask) as usize) }
    }
    #[inline(always)]
    fn half(&self, offset: u32) -> u16 {
        // SAFETY: masked to the size of the map value, aligned.
        unsafe { *self.base.add((u64::from(offset) & self.mask & !1) as usize).cast() }
    }
    #[inline(always)]
    fn word(&self, offset: u32) -> u32 {
        // SAFETY: masked to the size of the map value, aligned.
        unsafe { *self.base.add((u64::from(offset) & self.mask & !3) as usize).cast() }
    }
}

/// An operand in a scratch buffer: the bytes from `start` to [`END`].
#[derive(Clone, Copy)]
pub struct Text {
    /// Start of the buffer.
    pub base: *const u8,
    /// Offset of the first byte.
    pub start: u64,
    /// Where the state of a loop over it is.
    pub state: *mut Loop,
}

impl Text {
    /// Bytes of the operand.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        END.wrapping_sub(self.start) & (END - 1)
    }

    /// The byte at `index`; any byte of the buffer where the operand is shorter.
    #[inline(always)]
    pub fn byte(&self, index: u64) -> u8 {
        // SAFETY: masked to less than the size of the buffer.
        unsafe { *self.base.add((self.start.wrapping_add(index) & (END - 1)) as usize) }
    }
}

/// What a step of the automaton needs; on the stack of the program that loops.
#[repr(C)]
struct Walk<'a, I: ?Sized> {
    image: &'a I,
    text: Text,
    classes: u64,
    rows: u64,
    stride: u64,
}

impl Operand for Text {
    #[inline(always)]
    fn walk<I: ReadImage + ?Sized>(&self, image: &I, automaton: &Automaton, state: u32, from: u32) -> u32 {
        let mut walk = Walk {
            image,
            text: *self,
            classes: automaton.classes.into(),
            rows: automaton.rows.into(),
            stride: automaton.stride.into(),
        };
        // SAFETY: the buffer is this program's own.
        let run = unsafe { &mut *self.state };
        run.state = state.into();
        run.position = self.start.wrapping_add(from.into());
        let steps = self.length().wrapping_sub(from.into()) & (END - 1);
        // SAFETY: the callback gets the address of `walk`, which lives until the helper returns.
        unsafe {
            bpf_loop(steps as u32, step::<I> as *const () as *mut _, (&raw mut walk).cast(), 0);
        }
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*self.state).state) as u32 }
    }
}

#[inline(never)]
extern "C" fn step<I: ReadImage + ?Sized>(_index: u32, walk: *mut Walk<'_, I>) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given.
    let walk = unsafe { &mut *walk };
    // SAFETY: the buffer is this program's own.
    let run = unsafe { &mut *walk.text.state };
    let position = run.position;
    // SAFETY: masked to less than the size of the buffer.
    let byte = unsafe { *walk.text.base.add((position & (END - 1)) as usize) };
    let automaton = Automaton {
        classes: walk.classes as u32,
        rows: walk.rows as u32,
        stride: walk.stride as u32,
        accept: 0,
        start: 0,
        prefix: 0,
        thread_prefix: 0,
        states: 0,
    };
    run.state = walk.image.step(&automaton, run.state as u32, byte).into();
    run.position = position.wrapping_add(1);
    0
}
