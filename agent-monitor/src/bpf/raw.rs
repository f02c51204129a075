//! What aya does not do, by the system call itself: values of maps as plain bytes, where they are too large to be passed on
//! the stack or are another build's and have another size; and descriptors of links.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::maps::MapData;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const LINK_GET_FD_BY_ID: libc::c_int = 30;
/// `BPF_ANY` and `BPF_NOEXIST`.
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// The part of `union bpf_attr` that these commands read (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    /// Address of the value, or of the next key.
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that getting a descriptor by a number reads.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Sizes of a map's keys and values, as the kernel says them.
struct Sizes {
    key: usize,
    value: usize,
}

/// One more descriptor of the link with this number. What it attaches stays so while any is open.
///
/// # Errors
/// It is gone, or the kernel refuses.
pub fn link(id: u32) -> io::Result<OwnedFd> {
    let by_id = ById { id, next: 0, flags: 0 };
    // SAFETY: the kernel reads as many bytes as it is told of a structure that lives during the call and has as many.
    let found =
        unsafe { libc::syscall(libc::SYS_bpf, LINK_GET_FD_BY_ID, std::ptr::from_ref(&by_id), size_of::<ById>()) };
    let number = i32::try_from(found).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us, and nobody else has it.
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(number) }) }
}

/// The value of `key`, `None` where there is none.
///
/// # Errors
/// The kernel refuses, or the map is one with a value for each CPU.
pub fn get(map: &MapData, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; checked(map, key)?.value];
    absent_is_none(call(MAP_LOOKUP_ELEM, map, key.as_ptr(), value.as_mut_ptr(), ANY)).map(|found| found.map(|()| value))
}

/// Writes the value of `key`.
///
/// # Errors
/// The value has another size than the map's, the map is full, or the kernel refuses.
pub fn set(map: &MapData, key: &[u8], value: &[u8]) -> io::Result<()> {
    write(map, key, value, ANY)
}

/// Writes the value of `key` where there is none yet, and says whether that was so.
///
/// # Errors
/// As for [`set`].
pub fn add(map: &MapData, key: &[u8], value: &[u8]) -> io::Result<bool> {
    match write(map, key, value, NOEXIST) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    }
}

/// Removes the entry of `key`, where there is one.
///
/// # Errors
/// The kernel refuses.
pub fn remove(map: &MapData, key: &[u8]) -> io::Result<()> {
    checked(map, key)?;
    absent_is_none(call(MAP_DELETE_ELEM, map, key.as_ptr(), std::ptr::null_mut(), ANY)).map(drop)
}

/// All keys of a hash. One that comes or goes meanwhile may be among them or not; one that does neither is.
///
/// # Errors
/// The kernel refuses.
pub fn keys(map: &MapData) -> io::Result<Vec<Vec<u8>>> {
    let size = sizes(map)?.key;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let last = keys.last().map_or(std::ptr::null(), |key| key.as_ptr());
        let mut next = vec![0; size];
        match absent_is_none(call(MAP_GET_NEXT_KEY, map, last, next.as_mut_ptr(), ANY))? {
            Some(()) => keys.push(next),
            None => return Ok(keys),
        }
    }
}

fn write(map: &MapData, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    if checked(map, key)?.value != value.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map has values of another size"));
    }
    call(MAP_UPDATE_ELEM, map, key.as_ptr(), value.as_ptr().cast_mut(), flags)
}

fn checked(map: &MapData, key: &[u8]) -> io::Result<Sizes> {
    let sizes = sizes(map)?;
    if sizes.key != key.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map has keys of another size"));
    }
    Ok(sizes)
}

fn sizes(map: &MapData) -> io::Result<Sizes> {
    /// Hash, array, array of maps (`enum bpf_map_type`): one value for each key.
    const PLAIN: [u32; 3] = [1, 2, 12];
    let info = map.info().map_err(io::Error::other)?;
    if !PLAIN.contains(&(info.map_type().map_err(io::Error::other)? as u32)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map is of another kind"));
    }
    Ok(Sizes { key: info.key_size() as usize, value: info.value_size() as usize })
}

fn absent_is_none(result: io::Result<()>) -> io::Result<Option<()>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// `key` and `value` point to as many bytes as the kernel says that the map's keys and values have; `value` is written to by
/// commands that read a map.
fn call(command: libc::c_int, map: &MapData, key: *const u8, value: *mut u8, flags: u64) -> io::Result<()> {
    let map = map.fd().as_fd().as_raw_fd().cast_unsigned();
    let element = Element { map, padding: 0, key: key as u64, value: value as u64, flags };
    // SAFETY: the callers here, all in this file, asked the kernel for both sizes: it reads and writes that many bytes of
    // buffers that live during the call, and no more.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(&element), size_of::<Element>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
