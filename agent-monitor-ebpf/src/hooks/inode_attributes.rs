//! Times, extended attributes and access lists of a file; and reading attributes that hold data. Mode and owner are judged
//! by path (`path_attributes.rs`).
//!
//! These hooks give the dentry without its mount, see `mounts.rs`. On an overlay they see the file below it as well, with
//! the credentials of whoever mounted the overlay: that one is not judged again.

use super::on_magic;
use crate::kernel::{self, offset, opaque, read};
use crate::mounts::judge_file;
use crate::operation::{earlier, guard};
use crate::task::acts_for_others;
use agent_monitor_common::class::{Class, file};
use agent_monitor_common::field::MISSING;
use agent_monitor_common::hook::HookId;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;

/// `include/linux/fs.h`: the times are set because somebody asked for that, and not by a write.
const ATTR_TIMES_SET: u32 = 1 << 16;
const ATTR_TOUCH: u32 = 1 << 17;

/// How many parameters the hook has: from 6.3 on the first one is the mount's id mapping.
#[unsafe(no_mangle)]
static INODE_SETATTR_PARAMETERS: u32 = MISSING;

#[lsm(hook = "inode_setattr")]
fn inode_setattr(ctx: LsmContext) -> i32 {
    // VERIFIER: the context can only be read at fixed places. `opaque` keeps the two ways apart, so that the compiler does
    // not compute the place; the way that the kernel doesn't have is never followed.
    let (dentry, attributes, previous): (u64, u64, u64) = if offset(&INODE_SETATTR_PARAMETERS) == 3 {
        (opaque(ctx.arg(1)), opaque(ctx.arg(2)), opaque(ctx.arg(3)))
    } else {
        (ctx.arg(0), ctx.arg(1), ctx.arg(2))
    };
    let valid: u32 = read(attributes + offset(&kernel::IATTR_VALID) as u64);
    if valid & (ATTR_TIMES_SET | ATTR_TOUCH) == 0 {
        return earlier(previous as i32);
    }
    changed(HookId::InodeSetattr, previous as i32, dentry)
}

/// 1 where the kernel takes a 0 of ours for an answer that leaves nothing to ask; the loader writes it. Before 6.11 it then
/// lets whoever owns a file set and remove what needs CAP_SYS_ADMIN or CAP_SETFCAP, as soon as `bpf` is among its LSMs
/// (`security_inode_setxattr()` in `security/security.c`, mended by 61df7b828204); a 1 makes it ask.
#[unsafe(no_mangle)]
static XATTR_NOT_ASKED: u32 = MISSING;

#[lsm(hook = "inode_setxattr")]
fn inode_setxattr(ctx: LsmContext) -> i32 {
    ask(changed(HookId::InodeSetxattr, ctx.arg(6), ctx.arg(1)))
}

/// The result of a hook, after which the kernel asks for capabilities.
#[inline(always)]
fn ask(result: i32) -> i32 {
    if result == 0 && offset(&XATTR_NOT_ASKED) == 1 { 1 } else { result }
}

/// Attributes of users and of root hold data like the file itself, whatever a file system calls them. Access lists and labels
/// say of a file what stat(2) says: `ls -l` asks for them. Others that are called the system's may be a FUSE server's own.
#[lsm(hook = "inode_getxattr")]
fn inode_getxattr(ctx: LsmContext) -> i32 {
    let name: u64 = ctx.arg(1);
    let (start, next): ([u8; 7], [u8; 2]) = (read(name), read(name + 7));
    let list = matches!(&next, b"po" | b"nf" | b"ci" | b"sm" | b"nt" | b"do");
    if (&start == b"system." && list) || (&start == b"securit" && &next == b"y.") {
        return earlier(ctx.arg(2));
    }
    judge(HookId::InodeGetxattr, ctx.arg(2), ctx.arg(0), file::READ)
}

#[lsm(hook = "inode_removexattr")]
fn inode_removexattr(ctx: LsmContext) -> i32 {
    ask(changed(HookId::InodeRemovexattr, ctx.arg(3), ctx.arg(1)))
}

#[lsm(hook = "inode_set_acl")]
fn inode_set_acl(ctx: LsmContext) -> i32 {
    changed(HookId::InodeSetAcl, ctx.arg(4), ctx.arg(1))
}

#[lsm(hook = "inode_remove_acl")]
fn inode_remove_acl(ctx: LsmContext) -> i32 {
    changed(HookId::InodeRemoveAcl, ctx.arg(3), ctx.arg(1))
}

#[lsm(hook = "inode_file_setattr")]
fn inode_file_setattr(ctx: LsmContext) -> i32 {
    changed(HookId::InodeFileSetattr, ctx.arg(2), ctx.arg(0))
}

/// Judges a change of attributes of the file of the `struct dentry` at an address.
#[inline(always)]
fn changed(hook: HookId, previous: i32, dentry: u64) -> i32 {
    judge(hook, previous, dentry, file::SET_ATTRIBUTES)
}

/// Judges `access` to the file of the `struct dentry` at an address.
#[inline(always)]
fn judge(hook: HookId, previous: i32, dentry: u64, access: u16) -> i32 {
    guard(
        hook,
        Class::File,
        previous,
        #[inline(always)]
        |operation| {
            if acts_for_others() {
                return false;
            }
            judge_file(operation, dentry, access);
            if access != file::READ {
                let superblock: u64 = read(dentry + offset(&kernel::DENTRY_SB) as u64);
                on_magic(operation, read(superblock + offset(&kernel::SUPER_MAGIC) as u64));
            }
            true
        },
    )
}
