//! A second reading of the pattern language, as directly as it can be written: braces are expanded as text, then the
//! rest is matched by trying. It shares nothing with the automata that it checks.

/// Whether a resolved path matches a pattern that is known to be right.
pub(crate) fn matches(pattern: &str, path: &[u8]) -> bool {
    is_resolved(path) && expand(pattern).iter().any(|text| glob(&tokens(text), path))
}

/// Whether bytes are a path as the kernel resolves them.
pub(crate) fn is_resolved(path: &[u8]) -> bool {
    let Some(names) = path.strip_prefix(b"/") else { return false };
    let wrong = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    names.is_empty() || !names.split(|byte| *byte == b'/').any(wrong)
}

/// Stands where a brace was, in texts without braces: stars on both sides of it are not one `**`.
const SEAM: char = '\u{e000}';

/// The texts without braces that a pattern stands for.
pub(crate) fn expand(pattern: &str) -> Vec<String> {
    let bytes: Vec<char> = pattern.chars().collect();
    let (mut depth, mut class, mut i) = (0, false, 0);
    let (mut open, mut cuts) = (None, Vec::new());
    while i < bytes.len() {
        match bytes[i] {
            '\\' => i += 1,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '{' => {
                if depth == 0 {
                    open = Some(i);
                }
                depth += 1;
            }
            ',' if depth == 1 => cuts.push(i),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    let from = open.expect("a brace was opened");
                    let text = |range: std::ops::Range<usize>| bytes[range].iter().collect::<String>();
                    let (head, tail) = (text(0..from), text(i + 1..bytes.len()));
                    let bounds: Vec<usize> = std::iter::once(from).chain(cuts).chain([i]).collect();
                    return bounds
                        .windows(2)
                        .flat_map(|pair| expand(&format!("{head}{SEAM}{}{SEAM}{tail}", text(pair[0] + 1..pair[1]))))
                        .collect();
                }
            }
            _ => {}
        }
        i += 1;
    }
    vec![pattern.to_owned()]
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Byte(u8),
    Set(Vec<u8>),
    Star,
    StarStar,
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut tokens = Vec::new();
    while let Some(c) = rest.chars().next() {
        if c == SEAM {
            rest = &rest[SEAM.len_utf8()..];
        } else if c == '*' {
            let tail = rest.trim_start_matches('*');
            tokens.push(if rest.len() - tail.len() > 1 { Token::StarStar } else { Token::Star });
            rest = tail;
        } else if c == '?' {
            tokens.push(Token::Set((0..=255).filter(|byte| *byte != b'/').collect()));
            rest = &rest[1..];
        } else if c == '[' {
            let (set, tail) = class(&rest[1..]);
            tokens.push(Token::Set(set));
            rest = tail;
        } else {
            let (bytes, tail) = literal(rest);
            tokens.extend(bytes.into_iter().map(Token::Byte));
            rest = tail;
        }
    }
    tokens
}

fn literal(text: &str) -> (Vec<u8>, &str) {
    if let Some(digits) = text.strip_prefix("\\x") {
        return (vec![u8::from_str_radix(&digits[..2], 16).expect("two digits")], &digits[2..]);
    }
    let text = text.strip_prefix('\\').unwrap_or(text);
    let length = text.chars().next().map_or(0, char::len_utf8);
    (text.as_bytes()[..length].to_vec(), &text[length..])
}

fn class(mut text: &str) -> (Vec<u8>, &str) {
    let negated = text.starts_with('!');
    text = text.strip_prefix('!').unwrap_or(text);
    let mut members = Vec::new();
    while !text.starts_with(']') {
        let (first, tail) = literal(text);
        text = tail;
        let mut last = first[0];
        if text.starts_with('-') && !text.starts_with("-]") {
            let (end, tail) = literal(&text[1..]);
            (last, text) = (end[0], tail);
        }
        members.extend(first[0]..=last);
    }
    ((0..=255).filter(|byte| *byte != b'/' && members.contains(byte) != negated).collect(), &text[1..])
}

fn glob(tokens: &[Token], path: &[u8]) -> bool {
    go(tokens, 0, path)
}

fn go(tokens: &[Token], at: usize, path: &[u8]) -> bool {
    let Some(token) = tokens.get(at) else { return path.is_empty() };
    match token {
        Token::Byte(byte) => path.first() == Some(byte) && go(tokens, at + 1, &path[1..]),
        Token::Set(set) => path.first().is_some_and(|byte| set.contains(byte)) && go(tokens, at + 1, &path[1..]),
        Token::Star => {
            let run = path.iter().take_while(|byte| **byte != b'/').count();
            (0..=run).any(|taken| go(tokens, at + 1, &path[taken..]))
        }
        Token::StarStar => {
            let slash = Some(&Token::Byte(b'/'));
            let between = at > 0 && tokens.get(at - 1) == slash && tokens.get(at + 1) == slash;
            between && go(tokens, at + 2, path) || (0..=path.len()).any(|taken| go(tokens, at + 1, &path[taken..]))
        }
    }
}
