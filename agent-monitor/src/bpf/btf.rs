//! A reader of the kernel's BTF, as far as the loader needs it: offsets of fields, sizes of structures, parameters of
//! functions. Format: `Documentation/bpf/btf.rst` of the kernel. The bytes are the kernel's own, and still every read is
//! checked.

use std::collections::HashMap;
use std::path::Path;

const MAGIC: u16 = 0xeb9f;
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// volatile, const, restrict, type tag: all say something about the type that they point to.
const MODIFIERS: [u32; 4] = [9, 10, 11, 18];
/// Deepest nesting of anonymous structures and chain of modifiers that is followed.
const DEPTH: usize = 16;

/// Types of a kernel.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type by its id; 0 is void.
    types: Vec<usize>,
    by_name: HashMap<(u32, String), u32>,
}

/// One type's fixed part.
#[derive(Clone, Copy)]
struct Type {
    info: u32,
    /// Size, or the type that it refers to.
    size_or_type: u32,
    /// Offset of what follows.
    rest: usize,
}

impl Type {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }
    fn entries(self) -> usize {
        (self.info & 0xffff) as usize
    }
}

impl Btf {
    /// Reads the file, usually `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// The file can't be read or is no BTF.
    pub fn read(path: &Path) -> Result<Self, String> {
        let data = std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
        Self::parse(data).ok_or_else(|| format!("{} is not BTF that this version can read", path.display()))
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let half = u16::from_le_bytes(data.get(..2)?.try_into().ok()?);
        if half != MAGIC {
            return None;
        }
        let mut btf = Self { data, strings: 0, types: vec![0], by_name: HashMap::new() };
        let header = btf.word(4)? as usize;
        let types = header.checked_add(btf.word(8)? as usize)?;
        let end = types.checked_add(btf.word(12)? as usize)?;
        btf.strings = header.checked_add(btf.word(16)? as usize)?;
        let mut at = types;
        while at < end {
            let id = u32::try_from(btf.types.len()).ok()?;
            btf.types.push(at);
            let found = btf.at(at)?;
            let name = btf.string(btf.word(at)?)?;
            if matches!(found.kind(), KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_TYPEDEF | KIND_FUNC)
                && !name.is_empty()
            {
                let name = name.to_owned();
                btf.by_name.entry((found.kind(), name)).or_insert(id);
            }
            at = found.rest.checked_add(rest_bytes(found)?)?;
        }
        Some(btf)
    }

    /// Offset in bytes of `member` (members of members with dots between) in the structure `name`. Anonymous structures
    /// and unions on the way are looked into.
    pub fn offset(&self, name: &str, member: &str) -> Option<u32> {
        self.bits(name, member).map(|bits| bits / 8)
    }

    /// Which bit of its byte a bit field is, the lowest first (the machines are little-endian).
    pub fn bit(&self, name: &str, member: &str) -> Option<u32> {
        self.bits(name, member).map(|bits| bits % 8)
    }

    fn bits(&self, name: &str, member: &str) -> Option<u32> {
        let mut id = *self.by_name.get(&(KIND_STRUCT, name.to_owned()))?;
        let mut offset = 0;
        for part in member.split('.') {
            let (at, next) = self.member(id, part, DEPTH)?;
            offset += at;
            id = next;
        }
        Some(offset)
    }

    /// Size in bytes of a structure.
    pub fn size(&self, name: &str) -> Option<u32> {
        Some(self.get(*self.by_name.get(&(KIND_STRUCT, name.to_owned()))?)?.size_or_type)
    }

    /// Value of an enumerator.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let found = self.get(*self.by_name.get(&(KIND_ENUM, enumeration.to_owned()))?)?;
        let named = |at: &usize| self.word(*at).and_then(|offset| self.string(offset)) == Some(name);
        let at = (0..found.entries()).map(|index| found.rest + index * 8).find(named)?;
        self.word(at + 4)
    }

    /// Number of parameters of a function.
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let found = self.get(*self.by_name.get(&(KIND_FUNC, function.to_owned()))?)?;
        let prototype = self.get(found.size_or_type)?;
        (prototype.kind() == KIND_FUNC_PROTO).then(|| prototype.entries())
    }

    /// Number of parameters of a tracepoint, without the one that every tracepoint has for itself.
    pub fn tracepoint_parameters(&self, name: &str) -> Option<usize> {
        let found = self.get(*self.by_name.get(&(KIND_TYPEDEF, format!("btf_trace_{name}")))?)?;
        let pointer = self.get(found.size_or_type)?;
        let prototype = self.get(pointer.size_or_type)?;
        (pointer.kind() == KIND_PTR && prototype.kind() == KIND_FUNC_PROTO).then(|| prototype.entries() - 1)
    }

    /// Offset in bits and type of a member.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let found = self.resolve(id)?;
        if depth == 0 || !matches!(found.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..found.entries() {
            let at = found.rest + index * 12;
            let (member_name, member_type, bits) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            // With the kind flag the upper byte is the size of a bit field.
            let bits = if found.info >> 31 == 1 { bits & 0xff_ffff } else { bits };
            match self.string(member_name)? {
                found if found == name => return Some((bits, member_type)),
                "" => {
                    if let Some((offset, inner)) = self.member(member_type, name, depth - 1) {
                        return Some((bits + offset, inner));
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let found = self.get(id)?;
            if found.kind() != KIND_TYPEDEF && !MODIFIERS.contains(&found.kind()) {
                return Some(found);
            }
            id = found.size_or_type;
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type> {
        match *self.types.get(id as usize)? {
            0 => None,
            at => self.at(at),
        }
    }

    fn at(&self, at: usize) -> Option<Type> {
        Some(Type { info: self.word(at + 4)?, size_or_type: self.word(at + 8)?, rest: at + 12 })
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.data.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let bytes = self.data.get(self.strings.checked_add(offset as usize)?..)?;
        std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    }
}

/// Bytes that follow the fixed part of a type; `None` for a kind that is not known, whose length can't be.
fn rest_bytes(found: Type) -> Option<usize> {
    Some(match found.kind() {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        4 | 5 | 15 | 19 => found.entries() * 12,
        6 | 13 => found.entries() * 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This machine's own kernel; a machine without BTF shows that it has none.
    fn kernel() -> Option<Btf> {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            println!("skipped: this kernel has no {}", path.display());
            return None;
        }
        Some(Btf::read(path).expect("the kernel's own BTF can be read"))
    }

    #[test]
    fn the_running_kernel_has_all_fields_in_reach() {
        let Some(btf) = kernel() else { return };
        // Laid out since the first version of the structures.
        assert_eq!(btf.offset("path", "mnt"), Some(0));
        assert_eq!(btf.offset("path", "dentry"), Some(8));
        assert!(btf.offset("sock", "__sk_common.skc_family").is_some());
        assert_eq!(btf.offset("file", "no_such_member"), None);
        assert_eq!(btf.size("path"), Some(16));
        assert_eq!(btf.enumerator("pid_type", "PIDTYPE_PID"), Some(0));
        assert_eq!(btf.enumerator("pid_type", "PIDTYPE_NONE"), None);
    }

    #[test]
    fn bytes_that_are_no_btf_are_refused() {
        for bytes in
            [&b""[..], b"\x9f\xeb", b"\x9f\xeb\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert!(Btf::parse(bytes.to_vec()).is_none());
        }
    }
}
