//! Rust source as a list of words and signs, without comments and texts. Enough to see which paths a file names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A word (identifier or number) or a single sign; `::` is one sign. Each with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What is written.
    pub text: String,
    /// Where, counted from 1.
    pub line: usize,
}

/// All files under a directory whose name ends in `.rs`, in order.
pub fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Takes source apart.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: source, line: 1, tokens: Vec::new() };
    while !scanner.rest.is_empty() {
        scanner.step();
    }
    scanner.tokens
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Scanner<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let first = rest.chars().next().unwrap_or_default();
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = raw_text(rest) {
            self.skip(length);
        } else if rest.starts_with('"') || rest.starts_with("b\"") || rest.starts_with("c\"") {
            self.skip(text(rest));
        } else if first == '\'' {
            self.skip(character(rest));
        } else if is_word(first) {
            self.take(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        } else if rest.starts_with("::") {
            self.take(2);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.take(first.len_utf8());
        }
    }

    fn take(&mut self, length: usize) {
        self.tokens.push(Token { text: self.rest[..length].to_owned(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.rest.split_at(length);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

/// Length of a block comment, with those inside it.
fn block_comment(source: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < source.len() {
        let rest = &source[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    source.len()
}

/// Length of a text such as `r#"..."#`, if there is one.
fn raw_text(source: &str) -> Option<usize> {
    let start = ["r", "br", "cr"].iter().find_map(|prefix| source.strip_prefix(prefix))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let inside = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let before = source.len() - inside.len();
    Some(inside.find(&end).map_or(source.len(), |at| before + at + end.len()))
}

/// Length of a text in double quotes.
fn text(source: &str) -> usize {
    let start = source.find('"').map_or(0, |at| at + 1);
    let mut is_escaped = false;
    for (at, c) in source[start..].char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return start + at + 1,
            _ => {}
        }
    }
    source.len()
}

/// Length of a character, or of the quote alone where it is a lifetime's.
fn character(source: &str) -> usize {
    let mut chars = source.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => chars.find(|(_, c)| *c == '\'').map_or(source.len(), |(at, _)| at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_texts_are_no_code() {
        let source = "a // b\n/* c /* d */ e */ f \"g \\\" h\" r#\"i \" j\"# 'k' '\\'' b\"l\" m";
        assert_eq!(words(source), ["a", "f", "m"]);
    }

    #[test]
    fn paths_and_lifetimes_are_taken_apart_with_their_lines() {
        assert_eq!(words("use crate::a;"), ["use", "crate", "::", "a", ";"]);
        assert_eq!(words("&'a str"), ["&", "a", "str"]);
        assert_eq!(tokens("a\n\nb /*\n*/ c").iter().map(|token| token.line).collect::<Vec<_>>(), [1, 3, 4]);
    }
}
