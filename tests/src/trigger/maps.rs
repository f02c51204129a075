//! Maps of the kernel's, whoever made them.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Row;
use super::sys::{Done, check, descriptor};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const OBJ_GET: libc::c_int = 7;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// Where the name is in `struct bpf_map_info`.
const NAME: std::ops::Range<usize> = 24..40;

pub const STEPS: &[Row] = &[
    // How many maps have this name.
    ("count-maps", |_, words| {
        let (mut id, mut count) = (0, 0);
        loop {
            let mut next = [id, 0, 0, 0];
            match bpf(MAP_GET_NEXT_ID, &mut next) {
                Ok(_) => id = next[1],
                Err(libc::ENOENT) => return Ok(count),
                Err(errno) => return Err(errno),
            }
            match by_id(id) {
                Ok(map) => count += i64::from(name(&map)? == words.text(1)),
                // It is gone meanwhile.
                Err(libc::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }),
    // The id of the map at an index of a pinned array of maps.
    ("inner-map", |_, words| Ok(inner(&pinned(&words.path(1))?, words.number(2))?.into())),
    // Puts the map at one index of a pinned array of maps at another one too.
    ("copy-inner-map", |_, words| {
        let outer = pinned(&words.path(1))?;
        let map = by_id(inner(&outer, words.number(2))?)?;
        let (key, value) = (words.number(3) as u32, map.as_raw_fd());
        let mut element = [outer.as_raw_fd() as u64, &raw const key as u64, &raw const value as u64, 0];
        bpf(MAP_UPDATE_ELEM, &mut element)
    }),
];

fn bpf<T, const N: usize>(command: libc::c_int, attributes: &mut [T; N]) -> Done {
    // SAFETY: the structure is as long as is said; what it points to lives in the callers here, and is as long as the kernel
    // takes it for: keys and values of arrays of maps have four bytes.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of::<[T; N]>()) })
}

fn pinned(path: &CStr) -> Result<OwnedFd, i32> {
    descriptor(bpf(OBJ_GET, &mut [path.as_ptr() as u64, 0])? as i32)
}

fn by_id(id: u32) -> Result<OwnedFd, i32> {
    descriptor(bpf(MAP_GET_FD_BY_ID, &mut [id, 0, 0, 0])? as i32)
}

fn inner(outer: &OwnedFd, index: i64) -> Result<u32, i32> {
    let (key, mut value) = (index as u32, 0_u32);
    bpf(MAP_LOOKUP_ELEM, &mut [outer.as_raw_fd() as u64, &raw const key as u64, &raw mut value as u64, 0])?;
    Ok(value)
}

fn name(map: &OwnedFd) -> Result<String, i32> {
    let mut info = [0_u8; 88];
    let length = (info.len() as u64) << 32;
    bpf(OBJ_GET_INFO_BY_FD, &mut [map.as_raw_fd() as u64 | length, info.as_mut_ptr() as u64])?;
    let name = info[NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
