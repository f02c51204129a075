//! Steps as lines: words between tabs, in which every byte that is not plain is `%XX`.

use std::ffi::CString;

/// The words of a step.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<Vec<u8>>);

impl Words {
    /// Reads a line.
    pub fn decode(line: &[u8]) -> Self {
        Self(line.split(|byte| *byte == b'\t').map(decode_word).collect())
    }

    /// A word as text; empty where there is none.
    pub fn text(&self, index: usize) -> String {
        String::from_utf8_lossy(self.0.get(index).map_or(&[][..], Vec::as_slice)).into_owned()
    }

    /// A word as a number; 0 where there is none.
    pub fn number(&self, index: usize) -> i64 {
        self.text(index).parse().unwrap_or(0)
    }

    /// A word as the kernel takes it.
    pub fn path(&self, index: usize) -> CString {
        let bytes = self.0.get(index).cloned().unwrap_or_default();
        CString::new(bytes).expect("the scenarios write no NUL into paths")
    }
}

/// Writes a line, without its end.
pub fn encode(words: &[Vec<u8>]) -> String {
    let words: Vec<String> = words.iter().map(|word| encode_word(word)).collect();
    words.join("\t")
}

fn encode_word(word: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:,@=+*".contains(&byte);
    word.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

fn decode_word(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
