//! Offsets of kernel fields for the constants of the object.

use super::btf::Btf;
use agent_monitor_common::field::{EITHER, ENUMERATORS, FIELDS, MASKS, MISSING, OPTIONAL, SIZES};

/// Bytes of a `struct dentry` that a step of the path walk reads at once; a kernel where the fields that it needs lie
/// farther back is refused. The same number stands in the kernel programs (`path.rs`).
const DENTRY_BYTES: u32 = 64;

/// The value of each constant, or all that the kernel lacks.
pub fn constants(btf: &Btf) -> Result<Vec<(&'static str, u32)>, Vec<String>> {
    let mut missing = Vec::new();
    let mut constants = Vec::new();
    for field in FIELDS {
        match btf.offset(field.structure, field.member) {
            Some(offset) => constants.push((field.symbol, offset)),
            None if OPTIONAL.contains(&field.symbol) => {}
            None if EITHER.iter().flatten().any(|symbol| *symbol == field.symbol) => {}
            None => missing.push(format!("struct {}.{} ({})", field.structure, field.member, field.purpose)),
        }
    }
    for either in EITHER {
        if !constants.iter().any(|(symbol, _)| either.contains(symbol)) {
            missing.push(format!("what {} stand for", either.join(" and ")));
        }
    }
    for (field, mask) in MASKS {
        let field = FIELDS.iter().find(|row| row.symbol == *field);
        // A field that is missing was told above.
        if let Some(bit) = field.and_then(|row| btf.bit(row.structure, row.member)) {
            constants.push((mask, 1 << bit));
        }
    }
    for (symbol, structure) in SIZES {
        match btf.size(structure) {
            Some(size) => constants.push((symbol, size)),
            None => missing.push(format!("struct {structure}")),
        }
    }
    for (symbol, enumeration, name) in ENUMERATORS {
        constants.push((symbol, btf.enumerator(enumeration, name).unwrap_or(MISSING)));
    }
    for (symbol, bytes) in [("DENTRY_FLAGS", 4), ("DENTRY_SEQ", 4), ("DENTRY_PARENT", 8), ("DENTRY_NAME", 16)] {
        let end = constants.iter().find(|(name, _)| *name == symbol).map(|(_, offset)| offset + bytes);
        if end.is_some_and(|end| end > DENTRY_BYTES) {
            missing.push(format!("{symbol} in the first {DENTRY_BYTES} bytes of struct dentry"));
        }
    }
    if missing.is_empty() { Ok(constants) } else { Err(missing) }
}
