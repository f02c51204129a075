//! Values of maps as plain bytes, by the system call itself: for values that are too large to be passed on the stack, as aya
//! passes them, and for maps of another build, whose values have another size.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::MapData;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;

/// The part of `union bpf_attr` that these commands read (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The value of `key`, `None` where there is none.
///
/// # Errors
/// The kernel refuses, or the map is one with a value for each CPU.
pub fn get(map: &MapData, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; checked(map, key)?];
    let element = element(map.fd().as_fd(), key, value.as_mut_ptr() as u64);
    match call(MAP_LOOKUP_ELEM, &element) {
        Ok(()) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the value of `key`.
///
/// # Errors
/// The value has another size than the map's, the map is full, or the kernel refuses.
pub fn set(map: &MapData, key: &[u8], value: &[u8]) -> io::Result<()> {
    if checked(map, key)? != value.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map has values of another size"));
    }
    call(MAP_UPDATE_ELEM, &element(map.fd().as_fd(), key, value.as_ptr() as u64))
}

/// The size of a value, once it is sure that the kernel reads and writes no more than that.
fn checked(map: &MapData, key: &[u8]) -> io::Result<usize> {
    /// Hash, array, array of maps (`enum bpf_map_type`): one value for each key. The value of an array of maps is a number.
    const PLAIN: [u32; 3] = [1, 2, 12];
    let info = map.info().map_err(io::Error::other)?;
    let kind = info.map_type().map_err(io::Error::other)? as u32;
    if !PLAIN.contains(&kind) || info.key_size() as usize != key.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map has keys or values of another kind"));
    }
    Ok(info.value_size() as usize)
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: u64) -> Element {
    Element { map: map.as_raw_fd().cast_unsigned(), padding: 0, key: key.as_ptr() as u64, value, flags: 0 }
}

fn call(command: libc::c_int, element: &Element) -> io::Result<()> {
    // SAFETY: the descriptor, the key and the value live during the call, and `checked` asked the kernel for the sizes of
    // both: it reads and writes that many bytes and no more.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(element), size_of::<Element>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
