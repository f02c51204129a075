//! Bytes as text: as a pattern that matches just them, and as what a person reads.

use std::fmt::Write;

/// A pattern that matches just `bytes`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    escape(bytes, |c| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\' | '$'))
}

/// `bytes` with a backslash doubled, and control bytes and what is not UTF-8 as `\xHH`: nothing is lost, and nothing can
/// be forged.
pub(crate) fn readable(bytes: &[u8]) -> String {
    escape(bytes, |c| c == '\\')
}

fn escape(bytes: &[u8], special: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if special(c) {
                out.push('\\');
                out.push(c);
            } else if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hexadecimal(&mut out, byte));
            } else {
                out.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| hexadecimal(&mut out, *byte));
    }
    out
}

fn hexadecimal(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a string can't fail");
}
