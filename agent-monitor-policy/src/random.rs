//! Random patterns and paths for the property tests: seeded, so that a failure can be run again.

use crate::pattern::naive::{Token, expand, tokens};

/// SplitMix64.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn one<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[self.below(choices.len())]
    }

    fn word(&mut self, choices: &[&'static str]) -> &'static str {
        self.one::<&'static str>(choices)
    }

    /// A pattern that parses: a small alphabet, so that patterns meet.
    pub(crate) fn pattern(&mut self) -> String {
        let mut text = String::from(self.word(&["/", "/", "/", "**/", "{/,/b/}", "{**/,/a/}"]));
        for _ in 0..self.below(6) {
            self.part(&mut text, 0);
        }
        // A pattern that ends in a slash matches no path, which is an error and tested elsewhere.
        if text.ends_with('/') { text + self.word(&["a", "*", "**", "?", ".*"]) } else { text }
    }

    fn part(&mut self, text: &mut String, depth: usize) {
        match self.below(if depth < 2 { 22 } else { 20 }) {
            0..=4 => text.push('/'),
            5..=9 => text.push_str(self.word(&["a", "b", ".", "ab", "c"])),
            10 | 11 => text.push('*'),
            12 => text.push_str(self.word(&["**", "**", "***", "/**/", "/**", "**/"])),
            13 => text.push('?'),
            14 => {
                text.push_str(self.word(&["[ab]", "[!a]", "[a-c]", "[.-c]", "[a-]", "[\\x61-b]", "[!.\\]]", "[!-~]"]))
            }
            15 => text.push_str(self.word(&["\\*", "\\x61", "\\{", "\\\\", "\\x2f", "\\,", "\\xff"])),
            16..=19 => text.push_str(self.word(&["/a", "/b", "/*", ".a", "\u{e9}"])),
            _ => {
                text.push('{');
                for i in 0..=self.below(3) {
                    if i > 0 {
                        text.push(',');
                    }
                    for _ in 0..self.below(3) {
                        self.part(text, depth + 1);
                    }
                }
                text.push('}');
            }
        }
    }

    /// Bytes that the pattern matches, or nearly.
    pub(crate) fn path_like(&mut self, pattern: &str) -> Vec<u8> {
        let texts = expand(pattern);
        let mut path = Vec::new();
        let text: &String = self.one(&texts);
        for token in tokens(text) {
            match token {
                Token::Byte(byte) => path.push(byte),
                Token::Set(set) => path.push(*self.one(&set)),
                Token::Star => path.extend(self.name(0)),
                Token::StarStar => {
                    path.extend(self.name(0));
                    for _ in 0..self.below(3) {
                        path.push(b'/');
                        path.extend(self.name(1));
                    }
                }
            }
        }
        // As `/**/` matches one slash, and as most doubled slashes come from there.
        let mut single: Vec<u8> = Vec::with_capacity(path.len());
        for byte in path {
            if byte != b'/' || single.last() != Some(&b'/') || self.below(20) == 0 {
                single.push(byte);
            }
        }
        if single.len() > 1 && single.ends_with(b"/") && self.below(4) > 0 {
            single.pop();
        }
        if self.below(3) == 0 && !single.is_empty() {
            let at = self.below(single.len());
            match self.below(3) {
                0 => single[at] = *self.one(b"ab./c\\*\xff"),
                1 => single.insert(at, *self.one(b"ab./c")),
                _ => drop(single.remove(at)),
            }
        }
        single
    }

    fn name(&mut self, least: usize) -> Vec<u8> {
        (0..least + self.below(3)).map(|_| *self.one(b"aabbc.\xc3")).collect()
    }
}

/// The seeds that a property test runs with: those that once failed, kept in `kept`, and one of this run.
pub(crate) fn seeds(kept: &str) -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let given = std::env::var("AGENT_MONITOR_SEED").ok().and_then(|text| number(&text));
    kept.lines().filter_map(number).chain([given.unwrap_or(20_261_122)]).collect()
}
