//! Addresses, prefixes and ports: from text, and as bytes of operands.

use crate::pattern::ByteSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of metadata services.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// What is wrong, and what would be right.
pub(crate) type Wrong = (String, String);

/// An address or a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    bytes: Vec<u8>,
    length: u32,
}

impl Prefix {
    pub(crate) fn v4(bytes: [u8; 4], length: u32) -> Self {
        Self { bytes: bytes.to_vec(), length }
    }

    pub(crate) fn v6(bytes: [u8; 16], length: u32) -> Self {
        Self { bytes: bytes.to_vec(), length }
    }

    fn of(address: IpAddr, length: u32) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets(), length),
            IpAddr::V6(address) => Self::v6(address.octets(), length),
        }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.bytes.len() == 4
    }

    /// Whether it is just 0.0.0.0 or `::`.
    pub(crate) fn is_unspecified(&self) -> bool {
        self.length as usize == self.bytes.len() * 8 && self.bytes.iter().all(|byte| *byte == 0)
    }

    /// The bytes that an address of it can have, position by position.
    pub(crate) fn sets(&self) -> Vec<ByteSet> {
        self.bytes
            .iter()
            .enumerate()
            .map(|(i, byte)| {
                let fixed = self.length.saturating_sub(i as u32 * 8).min(8);
                let free = 0xff_u32 >> fixed;
                ByteSet::range(*byte & !(free as u8), *byte | free as u8)
            })
            .collect()
    }

    /// Its addresses without that of the metadata service, unless it is just that: one list of sets for each byte in
    /// which an address can differ first.
    pub(crate) fn without_metadata(&self) -> Vec<Vec<ByteSet>> {
        let metadata: Vec<u8> =
            if self.is_v4() { METADATA_V4.octets().to_vec() } else { METADATA_V6.octets().to_vec() };
        let sets = self.sets();
        let holds = sets.iter().zip(&metadata).all(|(set, byte)| set.contains(*byte));
        if !holds || self.length as usize == self.bytes.len() * 8 {
            return vec![sets];
        }
        let parts = (0..sets.len()).map(|differs| {
            let mut part = sets.clone();
            for (i, byte) in metadata.iter().enumerate().take(differs) {
                part[i] = ByteSet::range(*byte, *byte);
            }
            part[differs].remove(metadata[differs]);
            part
        });
        parts.filter(|part| part.iter().all(|set| !set.is_empty())).collect()
    }
}

/// An address as operands have it: an IPv4-mapped IPv6 address is the IPv4 address.
pub(crate) fn parse_address(text: &str) -> Result<IpAddr, Wrong> {
    if let Some((address, _)) = text.split_once('%') {
        return Err((format!("address `{text}` has a zone"), format!("write `{address}`: zones are not matched")));
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(match without_leading_zeros(text) {
            Some(right) => (format!("address `{text}` has leading zeros"), format!("write `{right}`")),
            None if text.parse::<Ipv6Addr>().is_err() && text.starts_with('[') => {
                (format!("`{text}` is not an address"), "write it without brackets".to_owned())
            }
            None => (
                format!("`{text}` is not an address"),
                "write an IPv4 or IPv6 address or prefix, like `10.0.0.0/8` or `2001:db8::/32`".to_owned(),
            ),
        }),
    }
}

/// A dotted address as it is without the zeros at the start of its numbers.
fn without_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<&str> = text.split('.').map(|number| number.trim_start_matches('0')).collect();
    let filled: Vec<&str> = numbers.into_iter().map(|number| if number.is_empty() { "0" } else { number }).collect();
    let right = filled.join(".").parse().ok()?;
    text.chars().all(|c| c.is_ascii_digit() || c == '.').then_some(right)
}

/// An address, or a prefix in CIDR notation.
pub(crate) fn parse_prefix(text: &str) -> Result<Prefix, Wrong> {
    let Some((address, length)) = text.split_once('/') else {
        let address = parse_address(text)?;
        return Ok(Prefix::of(address, if address.is_ipv4() { 32 } else { 128 }));
    };
    let canonical = parse_address(if address.is_empty() { text } else { address })?;
    let written: IpAddr = address.parse().unwrap_or(canonical);
    let most = if written.is_ipv4() { 32 } else { 128 };
    let good = !length.is_empty() && length.len() <= 3 && length.chars().all(|c| c.is_ascii_digit());
    let Some(number) = length.parse::<u32>().ok().filter(|_| good) else {
        return Err((format!("`/{length}` is not the length of a prefix"), format!("write a number from 0 to {most}")));
    };
    if number.to_string() != length {
        return Err((format!("prefix length `/{length}` has leading zeros"), format!("write `{address}/{number}`")));
    }
    if number > most {
        return Err((format!("prefix length `/{number}` is too long"), format!("the longest here is `/{most}`")));
    }
    if written.is_ipv6() && canonical.is_ipv4() && number >= 96 {
        let right = masked(canonical, number - 96);
        let help = format!("write `{right}/{}`: an IPv4-mapped address is the IPv4 address", number - 96);
        return Err((format!("`{text}` is an IPv4-mapped prefix"), help));
    }
    let right = masked(written, number);
    if right != written {
        let help = format!("write `{right}/{number}`, or `{written}` for the one address");
        return Err((format!("`{text}` has host bits behind its prefix"), help));
    }
    Ok(Prefix::of(written, number))
}

fn masked(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// A port from 1 to 65535.
pub(crate) fn parse_port(text: &str) -> Result<u16, Wrong> {
    let wrong = |help: &str| Err((format!("`{text}` is not a port"), help.to_owned()));
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit()) {
        return wrong("write a number from 1 to 65535");
    }
    match text.parse::<u16>() {
        Ok(0) if text == "0" => {
            wrong("leave `ports` out: port 0, any free port, is matched only by a rule without `ports`")
        }
        Ok(port) if port.to_string() == text => Ok(port),
        Ok(port) => Err((format!("port `{text}` has leading zeros"), format!("write {port}"))),
        Err(_) => wrong("write a number from 1 to 65535"),
    }
}

/// A range like `8000-8999`.
pub(crate) fn parse_range(text: &str) -> Result<(u16, u16), Wrong> {
    if text.contains(char::is_whitespace) {
        let right: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        return Err((format!("`{text}` has spaces in it"), format!("write \"{right}\"")));
    }
    let Some((first, last)) = text.split_once('-') else {
        return Err(match parse_port(text) {
            Ok(port) => (format!("port \"{text}\" is text"), format!("write {port} without quotes")),
            Err((message, _)) => (message, "write a number, or a range like \"8000-8999\"".to_owned()),
        });
    };
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    if last < first {
        return Err((format!("range `{text}` runs backwards"), format!("write \"{last}-{first}\"")));
    }
    Ok((first, last))
}

/// The two bytes of the ports of a range, as pairs of sets.
pub(crate) fn port_bytes((first, last): (u16, u16)) -> Vec<(ByteSet, ByteSet)> {
    let ([high, low], [last_high, last_low]) = (first.to_be_bytes(), last.to_be_bytes());
    let one = |byte| ByteSet::range(byte, byte);
    if high == last_high {
        return vec![(one(high), ByteSet::range(low, last_low))];
    }
    let mut pairs = vec![(one(high), ByteSet::range(low, 255))];
    if high + 1 < last_high {
        pairs.push((ByteSet::range(high + 1, last_high - 1), ByteSet::ALL));
    }
    pairs.push((one(last_high), ByteSet::range(0, last_low)));
    pairs
}
