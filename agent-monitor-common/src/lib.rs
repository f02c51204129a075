//! What the kernel programs and user space share: the hook table, the classes and their accesses, the layout of images,
//! bindings and events, and `decide`, the one function that judges an operation on both sides.
//!
//! This crate does no I/O, allocates nothing and calls no BPF helper. Every structure that crosses the boundary is
//! `repr(C)`, has no padding (checked at compile time) and is decoded with checks by [`event`] and [`image`].
#![no_std]
#![forbid(unsafe_code)]

pub mod binding;
pub mod class;
pub mod counter;
pub mod decide;
pub mod event;
pub mod field;
pub mod fold;
pub mod hook;
pub mod image;
pub mod layout;
pub mod limit;
pub mod name;
pub mod privilege;
pub mod syscall;
