//! Bytes as text: as a pattern that matches just them, and as what a person reads.

use std::fmt::Write;

/// A pattern that matches just `bytes`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    escape(bytes, |c| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\' | '$'))
}

/// `bytes` with a backslash doubled, and what is not shown or not UTF-8 as `\xHH`: nothing is lost, and nothing can
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
            } else if is_hidden(c) {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hexadecimal(&mut out, byte));
            } else {
                out.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| hexadecimal(&mut out, *byte));
    }
    out
}

/// Whether a character is not shown, or changes how what follows is shown: controls, line and paragraph separators,
/// directions, joiners.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn hexadecimal(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a string can't fail");
}
