//! Paths: the names from an object up to the root of the task, as the task itself would write them.
//!
//! `bpf_d_path` may be called in sleepable programs only, so not in all hooks on any kernel and in no `path_*` hook
//! before 6.12. This walk works everywhere and is the only way, so all hooks on all kernels agree. It reads what
//! `prepend_path()` in `fs/d_path.c` reads, inside an RCU read section (no program here sleeps), which keeps names and
//! mounts from being freed. Within one level, name and parent are read under `d_seq`; then all levels are gone through
//! once more, so that a path is one that the object had at one moment, whatever others rename meanwhile.

use crate::image::Text;
use crate::kernel::{self, Kernel, address, load, offset, opaque, read};
use crate::scratch::{Buffer, END, Loop, reload};
use crate::task::current;
use agent_monitor_common::class::Fault;
use agent_monitor_common::limit::{NAME_BYTES, PATH_STEPS};
use agent_monitor_common::name::anonymous;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};

/// A name in a mount: addresses of a `struct dentry` and a `struct vfsmount`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Place {
    pub mount: u64,
    pub dentry: u64,
}

/// The `struct path` at an address; zeros, which no walk follows, where it can't be read.
#[inline(always)]
pub fn place_at(path: u64) -> Place {
    Place {
        mount: read(path + offset(&kernel::PATH_MNT) as u64),
        dentry: read(path + offset(&kernel::PATH_DENTRY) as u64),
    }
}

/// The name `dentry` in the directory `directory` (a `struct path`).
#[inline(always)]
pub fn place_in(directory: Kernel, dentry: Kernel) -> Place {
    Place { mount: read(address(directory, &kernel::PATH_MNT)), dentry: dentry as u64 }
}

/// Where a walk writes and what it changes; on the stack of the program, which has little room.
#[repr(C)]
struct Walk {
    buffer: *mut u8,
    state: *mut Loop,
}

/// Steps of a walk: up once to write the names, up once more to see that all levels are as they were, and the same again
/// where one was not.
const STEPS: u32 = 4 * PATH_STEPS;

/// First bytes of a `struct dentry`, which hold all that a step needs; the loader refuses a kernel where they don't.
pub const DENTRY_BYTES: usize = 64;

/// Writes the path of `place` into a buffer, so that it ends at [`END`].
#[inline(always)]
pub fn walk(buffer: Buffer, place: Place) -> Result<Text, Fault> {
    let fs: Kernel = load(current(), &kernel::TASK_FS);
    let mut walk = Walk { buffer: buffer.base, state: buffer.state };
    // SAFETY: the buffer is this program's own.
    let state = unsafe { &mut *buffer.state };
    state.root = place_at(address(fs, &kernel::FS_ROOT));
    state.start = place;
    state.position = END;
    state.checks = 0;
    state.result = Fault::PathTooLong as u64;
    start(state);
    // SAFETY: the callback gets the address of `walk`, which lives until the helper returns.
    unsafe { bpf_loop(STEPS, step as *const () as *mut _, (&raw mut walk).cast(), 0) };
    const CASE: u64 = Fault::PathCase as u64;
    match reload(&state.result) {
        0 => {}
        1 => return Err(Fault::PathTooLong),
        2 => return Err(Fault::PathUnreachable),
        CASE => return Err(Fault::PathCase),
        _ => return Err(Fault::PathUnreadable),
    }
    let mut start = reload(&state.position);
    if start >= END {
        // The root itself.
        start = END - 1;
        // SAFETY: END - 1 is in the buffer.
        unsafe { *buffer.base.add(END as usize - 1) = b'/' };
    }
    Ok(buffer.text(start))
}

/// One level up: 0 goes on, 1 ends the loop.
#[inline(never)]
extern "C" fn step(_index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: `bpf_loop` passes on what it was given, and the buffer is this program's own.
    let (walk, state) = unsafe { (&*walk, &mut *(*walk).state) };
    if state.dentry == state.root.dentry && state.mount == state.root.mount {
        return arrive(state);
    }
    let fault = if state.dentry == state.mount_root {
        leave_mount(state)
    } else {
        // Not on the stack, of which the programs together have 512 bytes.
        let head = (&raw mut state.head).cast::<u8>();
        // SAFETY: the helper never faults, and writes all bytes of what is as long as is said.
        unsafe { bpf_probe_read_kernel(head.cast(), DENTRY_BYTES as u32, state.dentry as *const _) };
        let head = head.cast_const();
        let parent: u64 = field(head, offset(&kernel::DENTRY_PARENT));
        let sequence: u32 = field(head, offset(&kernel::DENTRY_SEQ));
        if parent == 0 {
            Fault::PathUnreadable as u64
        } else if parent == state.dentry {
            Fault::PathUnreachable as u64
        } else if state.checks == 0 {
            take_name(walk.buffer, state, head)
        } else {
            go_up(state, parent, sequence);
            0
        }
    };
    if fault == 0 {
        return 0;
    }
    state.result = fault;
    1
}

/// Begins at the object.
#[inline(always)]
fn start(state: &mut Loop) {
    state.seen = 0;
    state.dentry = state.start.dentry;
    state.mount = state.start.mount;
    state.mount_root = read(state.mount + offset(&kernel::VFSMOUNT_ROOT) as u64);
}

/// At the root. Each level was read at its own moment; if all are found unchanged once more, then all were as they were
/// read in the moment between. Else a rename came between, and all is read anew. 0 goes on, 1 ends the loop.
#[inline(always)]
fn arrive(state: &mut Loop) -> i64 {
    if state.checks == 0 {
        state.expected = state.seen;
        state.checks = 1;
    } else if state.seen == state.expected {
        state.result = 0;
        return 1;
    } else {
        state.checks = 0;
        state.position = END;
        state.result = Fault::PathUnreadable as u64;
    }
    start(state);
    0
}

/// Notes a level: where it is, and what changes when it is moved.
#[inline(always)]
fn note(state: &mut Loop, place: u64, version: u64) {
    // Any odd number with many bits: levels in another order, or other versions, give another sum.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    state.seen = (state.seen ^ place).wrapping_mul(MIX) ^ version.wrapping_mul(MIX).rotate_left(32);
}

/// Goes from the top of a mount to the name that it is mounted on. Gives the fault, or 0.
#[inline(always)]
fn leave_mount(walk: &mut Loop) -> u64 {
    let mount = walk.mount.wrapping_sub(offset(&kernel::MOUNT_MNT) as u64);
    let parent: u64 = read(mount + offset(&kernel::MOUNT_PARENT) as u64);
    let mountpoint: u64 = read(mount + offset(&kernel::MOUNT_MOUNTPOINT) as u64);
    if parent == 0 || mountpoint == 0 {
        return Fault::PathUnreadable as u64;
    }
    if parent == mount {
        return Fault::PathUnreachable as u64;
    }
    note(walk, mount, parent ^ mountpoint.rotate_left(32));
    walk.dentry = mountpoint;
    walk.mount = parent + offset(&kernel::MOUNT_MNT) as u64;
    walk.mount_root = read(walk.mount + offset(&kernel::VFSMOUNT_ROOT) as u64);
    0
}

/// Goes to the directory of a name.
#[inline(always)]
fn go_up(walk: &mut Loop, parent: u64, sequence: u32) {
    note(walk, walk.dentry, sequence.into());
    walk.dentry = parent;
}

/// Writes `/` and the name of the dentry that starts with `head` in front of what is there, and goes to the directory.
/// Gives the fault, or 0. Nothing changes where the name was being renamed: the next step tries again.
#[inline(always)]
fn take_name(buffer: *mut u8, walk: &mut Loop, head: *const u8) -> u64 {
    let parent: u64 = field(head, offset(&kernel::DENTRY_PARENT));
    let sequence: u32 = field(head, offset(&kernel::DENTRY_SEQ));
    // struct qstr: { u32 hash; u32 len; const unsigned char *name } (little endian).
    let length: u32 = field(head, offset(&kernel::DENTRY_NAME) + 4);
    let name: u64 = field(head, offset(&kernel::DENTRY_NAME) + 8);
    let flags: u32 = field(head, offset(&kernel::DENTRY_FLAGS));
    if flags & DCACHE_OP_HASH != 0 && folds(parent) {
        return Fault::PathCase as u64;
    }
    if length > NAME_BYTES as u32 {
        // Some file systems have longer names than `NAME_MAX`, which would be cut off.
        return Fault::PathTooLong as u64;
    }
    let length = u64::from(length) & NAME_BYTES as u64;
    if walk.position <= length + 1 {
        return Fault::PathTooLong as u64;
    }
    // VERIFIER: 6.12 loses the upper bound of a number that is linked to another by an addition and a comparison.
    let length = opaque(length) & NAME_BYTES as u64;
    let position = opaque(walk.position - length) & (END - 1);
    // SAFETY: position < END and length <= NAME_BYTES, so the name ends inside of the buffer.
    let failed =
        unsafe { bpf_probe_read_kernel(buffer.add(position as usize).cast(), length as u32, name as *const _) };
    if failed != 0 {
        return Fault::PathUnreadable as u64;
    }
    let after: u32 = read(walk.dentry + offset(&kernel::DENTRY_SEQ) as u64);
    if sequence & 1 != 0 || after != sequence {
        return 0;
    }
    let position = opaque(position - 1) & (END - 1);
    // SAFETY: position < END.
    unsafe { *buffer.add(position as usize) = b'/' };
    walk.position = position;
    go_up(walk, parent, sequence);
    0
}

/// Whether a directory, in whose file system names have a hash of their own, takes several spellings for one name: so it
/// is in each such file system, but for those where a flag of the directory says it (`IS_CASEFOLDED()` in
/// `include/linux/fs.h`).
#[inline(always)]
fn folds(directory: u64) -> bool {
    const S_CASEFOLD: u32 = 1 << 15;
    let inode: u64 = read(directory + offset(&kernel::DENTRY_INODE) as u64);
    let superblock: u64 = read(directory + offset(&kernel::DENTRY_SB) as u64);
    let by_flag =
        matches!(read(superblock + offset(&kernel::SUPER_MAGIC) as u64), EXT4 | F2FS | TMPFS | OVERLAY | GFS2);
    !by_flag || read::<u32>(inode + offset(&kernel::INODE_FLAGS) as u64) & S_CASEFOLD != 0
}

/// A field of the copied head of a dentry.
#[inline(always)]
fn field<T: Copy>(head: *const u8, offset: usize) -> T {
    // SAFETY: the loader checked that the offset and its value lie within DENTRY_BYTES; the verifier checks it again.
    unsafe { core::ptr::read_volatile(head.add(offset).cast()) }
}

/// `include/linux/dcache.h`: names have a hash of the file system's own.
const DCACHE_OP_HASH: u32 = 1;
// `include/uapi/linux/magic.h`
const EXT4: u64 = 0xef53;
const F2FS: u64 = 0xf2f5_2010;
const OVERLAY: u64 = 0x794c_7630;
/// Its hash is its own, and its names are what they are.
const GFS2: u64 = 0x0116_1970;
/// `include/linux/fs.h`: mounted by the kernel for itself.
pub const SB_KERNMOUNT: u64 = 1 << 22;
// `include/uapi/linux/magic.h`
pub const PIPEFS: u64 = 0x5049_5045;
const SOCKFS: u64 = 0x534f_434b;
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;
const ANON_INODE_FS: u64 = 0x0904_1934;
pub const PIDFS: u64 = 0x5049_4446;
/// `ipc/mqueue.c`: the file system of POSIX message queues.
pub const MQUEUE: u64 = 0x1980_0202;
/// Error pointers are at the end of memory (`include/linux/err.h`).
const LOWEST_ERROR: u64 = 4095u64.wrapping_neg();

/// Whether an object has a path, or what it is without one.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Named {
    Path,
    Memfd,
    Deleted,
    Pipe,
    Socket,
    Other,
}

/// Writes the operand of an object that has no path.
#[inline(always)]
pub fn nameless_text(buffer: Buffer, named: Named) -> Text {
    match named {
        Named::Memfd => word(buffer, anonymous::MEMFD),
        Named::Deleted => word(buffer, anonymous::DELETED),
        Named::Pipe => word(buffer, anonymous::PIPE),
        Named::Socket => word(buffer, anonymous::SOCKET),
        Named::Other | Named::Path => word(buffer, anonymous::OTHER),
    }
}

#[inline(always)]
fn word(buffer: Buffer, word: &'static str) -> Text {
    let start = END as usize - word.len();
    let mut i = 0;
    while i < word.len() {
        buffer.put(start + i, word.as_bytes()[i]);
        i += 1;
    }
    buffer.text(start as u64)
}

/// Whether the file behind an inode and a dentry, whose `struct vfsmount` is at `mount`, has a path. File systems that the
/// kernel mounts for itself and users mount too (tracefs, securityfs) have `SB_KERNMOUNT` as well, so the mount must be
/// internal, too.
#[inline(always)]
pub fn nameless(inode: Kernel, dentry: Kernel, mount: u64) -> Named {
    let superblock: Kernel = load(inode, &kernel::INODE_SB);
    let flags: u64 = load(superblock, &kernel::SUPER_FLAGS);
    let magic: u64 = load(superblock, &kernel::SUPER_MAGIC);
    if magic == MQUEUE && matches!(namespace(mount), 0 | LOWEST_ERROR..) {
        // The kernel's own mount of message queues, which has no namespace, and not on all kernels the flag.
        return Named::Other;
    }
    if flags & SB_KERNMOUNT != 0 && internal(mount) {
        return match magic {
            PIPEFS => Named::Pipe,
            SOCKFS => Named::Socket,
            TMPFS | HUGETLBFS => Named::Memfd,
            _ => Named::Other,
        };
    }
    if removed(dentry) { Named::Deleted } else { Named::Path }
}

/// Whether a mount is the kernel's own: `mnt_ns` is `MNT_NS_INTERNAL`, an error pointer (`fs/mount.h`). A mount that was
/// unmounted while somebody was in it has NULL there and is none of these.
#[inline(always)]
pub fn internal(mount: u64) -> bool {
    namespace(mount) >= LOWEST_ERROR
}

/// The `struct mnt_namespace` of a mount, or what stands there instead.
#[inline(always)]
fn namespace(mount: u64) -> u64 {
    let mount = mount.wrapping_sub(offset(&kernel::MOUNT_MNT) as u64);
    read(mount + offset(&kernel::MOUNT_NS) as u64)
}

/// Whether a name is gone (or never was, as with O_TMPFILE): `d_unlinked()` in `include/linux/dcache.h`.
#[inline(always)]
pub fn removed(dentry: Kernel) -> bool {
    // struct hlist_bl_node { next, pprev }: not hashed if pprev is NULL.
    // SAFETY: a load through a pointer that the verifier tracks.
    let pprev: u64 = unsafe { core::ptr::read_volatile(dentry.byte_add(offset(&kernel::DENTRY_HASH) + 8).cast()) };
    let parent: Kernel = load(dentry, &kernel::DENTRY_PARENT);
    pprev == 0 && parent as u64 != dentry as u64
}

/// What a file of a file system that users can't mount is, by the address of its `struct super_block`; `None` for one of
/// any other file system.
#[inline(always)]
pub fn internal_file_system(superblock: u64) -> Option<Named> {
    let flags: u64 = read(superblock + offset(&kernel::SUPER_FLAGS) as u64);
    if flags & SB_KERNMOUNT == 0 {
        return None;
    }
    match read::<u64>(superblock + offset(&kernel::SUPER_MAGIC) as u64) {
        PIPEFS => Some(Named::Pipe),
        SOCKFS => Some(Named::Socket),
        TMPFS | HUGETLBFS => Some(Named::Memfd),
        ANON_INODE_FS | PIDFS => Some(Named::Other),
        _ => None,
    }
}

/// The same as [`removed`] for the address of a dentry.
#[inline(always)]
pub fn was_removed(dentry: u64) -> bool {
    let pprev: u64 = read(dentry + offset(&kernel::DENTRY_HASH) as u64 + 8);
    let parent: u64 = read(dentry + offset(&kernel::DENTRY_PARENT) as u64);
    pprev == 0 && parent != dentry
}

/// Writes an operand of a few bytes.
#[inline(always)]
pub fn operand<const N: usize>(buffer: Buffer, bytes: [u8; N]) -> Text {
    let start = END as usize - N;
    let mut i = 0;
    while i < N {
        buffer.put(start + i, bytes[i]);
        i += 1;
    }
    buffer.text(start as u64)
}
