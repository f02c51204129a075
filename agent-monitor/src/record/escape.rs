//! Escaping of what an agent can choose (paths, arguments, names), so that no byte is lost and no line can be forged.
//!
//! Text stays readable: valid UTF-8 is kept but for control characters and characters that change how the rest of a
//! line is shown; those, and bytes that are not UTF-8, become `\xHH`, and a backslash becomes `\\`.

use agent_monitor_policy::is_hidden;

/// The bytes as text that [`unescape`] turns back into exactly these bytes.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.push_str("\\\\");
            } else if is_hidden(character) {
                push_hex(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// The bytes that [`escape`] made `text` of; `None` where it did not.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                tail
            }
            (b'\\', _) => return None,
            (byte, tail) => {
                bytes.push(byte);
                tail
            }
        };
    }
    Some(bytes)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push_str("\\x");
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        assert_eq!(escape("/wörk/ファイル name".as_bytes()), "/wörk/ファイル name");
    }

    #[test]
    fn a_line_can_not_be_forged() {
        assert_eq!(escape(b"/a\n{\"type\":\"operation\"}"), "/a\\x0a{\"type\":\"operation\"}");
        assert_eq!(escape(b"\x1b[2J\x7f\r"), "\\x1b[2J\\x7f\\x0d");
        assert_eq!(escape("\u{202e}txt.exe".as_bytes()), "\\xe2\\x80\\xaetxt.exe");
        assert_eq!(escape("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn bytes_that_are_not_utf8_and_backslashes_are_kept_apart() {
        assert_eq!(escape(b"/\xff"), "/\\xff");
        assert_eq!(escape(b"/\\xff"), "/\\\\xff");
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        for pair in 0..=u16::MAX {
            let bytes = [b'/', pair.to_be_bytes()[0], pair.to_be_bytes()[1], b'z'];
            assert_eq!(unescape(&escape(&bytes)).as_deref(), Some(&bytes[..]));
        }
    }

    #[test]
    fn what_was_not_escaped_is_refused() {
        for text in ["\\", "\\n", "\\x", "\\x4", "\\xg0", "a\\"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }
}
