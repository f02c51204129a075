//! The chain: each line of an audit log ends with the hash of the line before it and with its own, so that none can be
//! changed, removed, added or moved unnoticed. There is no secret in it: who may write the log may write another chain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a hash begins with.
const ALGORITHM: &str = "sha256:";
/// What stands before the hash of the line before, and where there is none after it.
const PREVIOUS: &str = ",\"prev\":";
/// What stands before the line's own hash.
const HASH: &str = ",\"hash\":\"";
/// What stands after it.
const END: &str = "\"}";
/// Bytes of a hash as text.
const HASH_LENGTH: usize = ALGORITHM.len() + 64;

/// Hash of a line: SHA-256 of its bytes up to `,"hash":`. As text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// Of these bytes.
    fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LineHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no hash: write it as sha256: and 64 hexadecimal digits in lower case");
        let digits = text.strip_prefix(ALGORITHM).filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digit = |digit: &u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            *byte = pair.iter().try_fold(0, |value, one| Some(value << 4 | digit(one)?)).ok_or_else(wrong)?;
        }
        Ok(Self(hash))
    }
}

impl From<LineHash> for String {
    fn from(hash: LineHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for LineHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The line of a record (a JSON object and a line feed) with the chain's two fields at its end, and its hash.
pub fn seal(line: &str, previous: Option<LineHash>) -> (String, LineHash) {
    let object = line.trim_end_matches('\n');
    let mut sealed = String::with_capacity(object.len() + 192);
    sealed.push_str(object.strip_suffix('}').unwrap_or(object));
    sealed.push_str(PREVIOUS);
    match previous {
        Some(hash) => {
            sealed.push('"');
            sealed.push_str(&hash.to_string());
            sealed.push('"');
        }
        None => sealed.push_str("null"),
    }
    let hash = LineHash::of(sealed.as_bytes());
    sealed.push_str(HASH);
    sealed.push_str(&hash.to_string());
    sealed.push_str(END);
    sealed.push('\n');
    (sealed, hash)
}

/// The two fields of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Hash of the line before; none at the start of a chain.
    pub previous: Option<LineHash>,
    /// The line's own hash, which is that of its bytes.
    pub hash: LineHash,
}

/// Why a line is no link of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    /// It does not end with the two fields.
    #[error("it does not end with the fields prev and hash")]
    Unsealed,
    /// Its bytes are others than when the hash was made.
    #[error("its bytes do not give its hash: they were changed")]
    Changed {
        /// The hash that it says it has.
        stated: LineHash,
    },
}

/// Reads the two fields of a line (without its line feed), and checks its bytes.
///
/// # Errors
/// See [`NoLink`].
pub fn read(line: &[u8]) -> Result<Link, NoLink> {
    let (hashed, stated) = hash_at_end(line).ok_or(NoLink::Unsealed)?;
    if LineHash::of(hashed) != stated {
        return Err(NoLink::Changed { stated });
    }
    let previous = previous_at_end(hashed).ok_or(NoLink::Unsealed)?;
    Ok(Link { previous, hash: stated })
}

/// The bytes that the hash is of, and the hash.
fn hash_at_end(line: &[u8]) -> Option<(&[u8], LineHash)> {
    let rest = line.strip_suffix(END.as_bytes())?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_LENGTH)?)?;
    let hash = std::str::from_utf8(hash).ok()?.parse().ok()?;
    Some((rest.strip_suffix(HASH.as_bytes())?, hash))
}

fn previous_at_end(hashed: &[u8]) -> Option<Option<LineHash>> {
    if hashed.strip_suffix(b"null").is_some_and(|rest| rest.ends_with(PREVIOUS.as_bytes())) {
        return Some(None);
    }
    let rest = hashed.strip_suffix(b"\"")?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_LENGTH)?)?;
    rest.strip_suffix(b"\"")?.strip_suffix(PREVIOUS.as_bytes())?;
    Some(Some(std::str::from_utf8(hash).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `printf %s '{"seq":1,"prev":null' | sha256sum` says.
    const FIRST: &str = "sha256:6d60db34373f02b8fd1e8155d662aedfcd187d730facb91957a3fc4abda765ac";

    #[test]
    fn a_sealed_line_is_a_record_with_two_more_fields_and_the_hash_that_sha256sum_gives() {
        let (first, hash) = seal("{\"seq\":1}\n", None);
        assert_eq!(first, format!("{{\"seq\":1,\"prev\":null,\"hash\":\"{hash}\"}}\n"));
        assert_eq!(hash.to_string(), FIRST);
        let (second, other) = seal("{\"seq\":2}\n", Some(hash));
        assert_eq!(second, format!("{{\"seq\":2,\"prev\":\"{hash}\",\"hash\":\"{other}\"}}\n"));
        assert_eq!(read(first.trim_end().as_bytes()), Ok(Link { previous: None, hash }));
        assert_eq!(read(second.trim_end().as_bytes()), Ok(Link { previous: Some(hash), hash: other }));
    }

    #[test]
    fn no_byte_of_a_line_can_be_changed_or_left_out() {
        let (_, hash) = seal("{\"seq\":1}\n", None);
        for previous in [None, Some(hash)] {
            let (line, _) = seal("{\"seq\":2}\n", previous);
            let line = line.trim_end().as_bytes();
            for at in 0..line.len() {
                for bit in 0..8 {
                    let mut changed = line.to_vec();
                    changed[at] ^= 1 << bit;
                    assert!(read(&changed).is_err(), "{}", String::from_utf8_lossy(&changed));
                }
                assert_eq!(read(&line[..at]), Err(NoLink::Unsealed));
            }
        }
    }

    #[test]
    fn a_hash_is_one_text_only() {
        let (_, hash) = seal("{}\n", None);
        let text = hash.to_string();
        assert_eq!(text.parse(), Ok(hash));
        for wrong in [text.to_uppercase(), text.replace("sha256", "sha512"), text[1..].to_owned(), text.clone() + "0"] {
            assert!(wrong.parse::<LineHash>().is_err(), "{wrong}");
        }
    }
}
