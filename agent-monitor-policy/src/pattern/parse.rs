//! From the text of a pattern to its graph.

use super::{ByteSet, Graph, NodeId, Step};

/// Values of `${NAME}`.
pub(crate) trait Variables {
    /// The value that is inserted; `None` where it is unset, which has been reported or is taken. An error is a name that
    /// nothing declares.
    fn value(&self, name: &str) -> Result<Option<String>, PatternError>;
}

/// What is wrong in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatternError {
    /// Where, in characters from the start of the pattern.
    pub offset: usize,
    /// What.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl PatternError {
    pub(crate) fn new(offset: usize, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { offset, message: message.into(), help: Some(help.into()) }
    }
}

/// How deep braces may nest: a hostile pattern must not exhaust the stack.
const DEPTH: usize = 32;
/// How many ways of beginning a pattern may have; see [`begins`].
const BEGINNINGS: usize = 1024;

/// A part of a pattern.
#[derive(Clone, Debug)]
enum Item {
    Byte(u8),
    Set(ByteSet),
    Name,
    Any,
    Either(Vec<Vec<Item>>),
}

/// Reads a pattern for paths.
pub(crate) fn parse_path(text: &str, variables: &dyn Variables) -> Result<Graph, PatternError> {
    let items = Parser::new(text, variables).all()?;
    let items = if items.is_empty() && !text.is_empty() {
        // Only variables, with the value `/`, whose slash at the end was dropped.
        vec![Item::Byte(b'/')]
    } else {
        items
    };
    begins(&items, &mut Vec::new(), false, &mut 0)?;
    Ok(graph(&items))
}

/// Reads a pattern for what follows the `@` of an abstract unix name.
pub(crate) fn parse_abstract(text: &str, variables: &dyn Variables) -> Result<Graph, PatternError> {
    Ok(graph(&Parser::new(text, variables).all()?))
}

/// Inserts the values of variables into text that is no pattern; `None` where one of them is unset.
pub(crate) fn expand(text: &str, variables: &dyn Variables) -> Result<Option<String>, PatternError> {
    let mut parser = Parser::new(text, variables);
    let mut out = Some(String::new());
    while let Some(c) = parser.peek() {
        if parser.at("${") {
            let value = parser.variable()?.1;
            out = out.zip(value).map(|(out, value)| out + &value);
        } else {
            out.iter_mut().for_each(|out| out.push(c));
            parser.position += 1;
        }
    }
    Ok(out)
}

/// Checks that a pattern begins with `/` or `**/` whichever alternatives are taken. `rest` is what follows the items;
/// `any` says that there was a `**`.
fn begins<'i>(items: &'i [Item], rest: &mut Vec<&'i [Item]>, any: bool, steps: &mut usize) -> Result<(), PatternError> {
    *steps += 1;
    if *steps > BEGINNINGS {
        return Err(PatternError::new(
            0,
            "pattern has too many alternatives before its first `/`",
            "write more patterns",
        ));
    }
    let relative = || PatternError::new(0, "pattern is not absolute", "begin it with `/` or `**/`");
    let Some((first, after)) = items.split_first() else {
        let Some(next) = rest.pop() else {
            let alone = PatternError::new(0, "`**` alone is not absolute", "write `/**` for every path");
            return Err(if any { alone } else { relative() });
        };
        let result = begins(next, rest, any, steps);
        rest.push(next);
        return result;
    };
    match first {
        Item::Byte(b'/') => Ok(()),
        Item::Any => begins(after, rest, true, steps),
        Item::Either(alternatives) => {
            rest.push(after);
            let result = alternatives.iter().try_for_each(|items| begins(items, rest, any, steps));
            rest.pop();
            result
        }
        _ => Err(relative()),
    }
}

fn graph(items: &[Item]) -> Graph {
    fn sequence(graph: &mut Graph, items: &[Item], end: NodeId) -> NodeId {
        items.iter().rev().fold(end, |next, item| match item {
            Item::Byte(byte) => graph.add(Step::Byte(*byte, next)),
            Item::Set(set) => graph.add(Step::Set(*set, next)),
            Item::Name => graph.add(Step::Name(next)),
            Item::Any => graph.add(Step::Any(next)),
            Item::Either(alternatives) => {
                let nodes = alternatives.iter().map(|items| sequence(graph, items, next)).collect();
                graph.add(Step::Either(nodes))
            }
        })
    }
    let mut graph = Graph::new();
    let start = sequence(&mut graph, items, 0);
    graph.starting(start)
}

struct Parser<'a> {
    characters: Vec<char>,
    position: usize,
    variables: &'a dyn Variables,
}

impl<'a> Parser<'a> {
    fn new(text: &str, variables: &'a dyn Variables) -> Self {
        Self { characters: text.chars().collect(), position: 0, variables }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.characters.get(self.position + i) == Some(&c))
    }

    fn all(mut self) -> Result<Vec<Item>, PatternError> {
        self.sequence(0)
    }

    /// The items up to the end, or up to the `,` or `}` that ends an alternative.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Item>, PatternError> {
        let mut items = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                '}' | ',' if depth > 0 => break,
                '}' => return Err(self.wrong("`}` without `{`", "write `\\}` for the character itself")),
                '{' => items.push(self.alternatives(depth)?),
                '[' => items.push(Item::Set(self.class()?)),
                '*' => {
                    let from = self.position;
                    while self.peek() == Some('*') {
                        self.position += 1;
                    }
                    items.push(if self.position - from == 1 { Item::Name } else { Item::Any });
                }
                '?' => {
                    self.position += 1;
                    items.push(Item::Set(without_slash(ByteSet::ALL)));
                }
                '\\' => items.extend(self.escape()?.into_iter().map(Item::Byte)),
                '$' if self.at("${") => items.extend(self.inserted()?.bytes().map(Item::Byte)),
                c => {
                    self.position += 1;
                    items.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Item::Byte));
                }
            }
        }
        Ok(items)
    }

    fn alternatives(&mut self, depth: usize) -> Result<Item, PatternError> {
        if depth == DEPTH {
            return Err(self.wrong(format!("braces are nested more than {DEPTH} deep"), "write more patterns"));
        }
        let from = self.position;
        let mut alternatives = Vec::new();
        loop {
            self.position += 1;
            alternatives.push(self.sequence(depth + 1)?);
            match self.peek() {
                Some(',') => {}
                Some(_) => break,
                None => {
                    let help = "close it with `}`, or write `\\{` for the character itself";
                    return Err(PatternError::new(from, "`{` is not closed", help));
                }
            }
        }
        self.position += 1;
        Ok(Item::Either(alternatives))
    }

    fn class(&mut self) -> Result<ByteSet, PatternError> {
        let from = self.position;
        if self.at("[^") {
            return Err(self.wrong("`[^` is not a class", "write `[!` for every byte but these, `[\\^` for `^` itself"));
        }
        if self.at("[[:") {
            return Err(self.wrong("named classes are not supported", "write the bytes, like `[a-zA-Z]`"));
        }
        let negated = self.at("[!");
        self.position += if negated { 2 } else { 1 };
        let mut set = ByteSet::NONE;
        while self.peek() != Some(']') {
            let start = self.position;
            let first = self.class_byte(from)?;
            let last = if self.at("-") && !self.at("-]") && self.peek().is_some() {
                self.position += 1;
                self.class_byte(from)?
            } else {
                first
            };
            if last < first {
                return Err(PatternError::new(start, "range of a class runs backwards", "put the lower byte first"));
            }
            (first..=last).for_each(|byte| set.insert(byte));
        }
        if set.is_empty() {
            return Err(PatternError::new(
                from,
                "class is empty",
                "name a byte, or write `\\[` for the character itself",
            ));
        }
        self.position += 1;
        let set = without_slash(if negated { set.not() } else { set });
        if set.is_empty() {
            return Err(PatternError::new(
                from,
                "class matches nothing: no class matches `/`",
                "write `/` outside of it",
            ));
        }
        Ok(set)
    }

    fn class_byte(&mut self, from: usize) -> Result<u8, PatternError> {
        match self.peek() {
            None => Err(PatternError::new(
                from,
                "`[` is not closed",
                "close it with `]`, or write `\\[` for the character itself",
            )),
            Some('\\') => {
                let at = self.position;
                match self.escape()?.as_slice() {
                    [byte] => Ok(*byte),
                    _ => Err(not_ascii(at)),
                }
            }
            Some(c) if c.is_ascii() => {
                self.position += 1;
                Ok(c as u8)
            }
            Some(_) => Err(not_ascii(self.position)),
        }
    }

    /// The bytes that a backslash and what follows it stand for.
    fn escape(&mut self) -> Result<Vec<u8>, PatternError> {
        let from = self.position;
        self.position += 1;
        match self.peek() {
            None => {
                Err(PatternError::new(from, "`\\` at the end of a pattern", "write `\\\\` for the character itself"))
            }
            Some('x') => {
                let digits: String = self.characters.iter().skip(self.position + 1).take(2).collect();
                self.position += 3;
                match (digits.len(), u8::from_str_radix(&digits, 16)) {
                    (2, Ok(byte)) if !digits.starts_with('+') => Ok(vec![byte]),
                    _ => Err(PatternError::new(
                        from,
                        "`\\x` without two hexadecimal digits",
                        "write a byte like `\\x0a`",
                    )),
                }
            }
            Some(c) if c.is_alphanumeric() => Err(PatternError::new(
                from,
                format!("`\\{c}` has no meaning"),
                format!("write `{c}` alone, `\\xHH` for the byte HH, or `\\\\` for a backslash"),
            )),
            Some(c) => {
                self.position += 1;
                Ok(c.encode_utf8(&mut [0; 4]).as_bytes().to_vec())
            }
        }
    }

    /// The value of a variable. Where it is unset a name stands for it, so that the pattern around it can be checked.
    fn inserted(&mut self) -> Result<String, PatternError> {
        let after_slash = self.position.checked_sub(1).is_some_and(|before| self.characters[before] == '/');
        let (name, value) = self.variable()?;
        Ok(value.unwrap_or_else(|| if after_slash { name } else { format!("/{name}") }))
    }

    /// The name of a variable and its value.
    fn variable(&mut self) -> Result<(String, Option<String>), PatternError> {
        let from = self.position;
        let name: String = self.characters[from + 2..].iter().take_while(|c| **c != '}').collect();
        let length = name.chars().count();
        if self.characters.get(from + 2 + length) != Some(&'}') {
            return Err(self.wrong("`${` is not closed", "write `${NAME}`, or `\\$` for the character itself"));
        }
        self.position += length + 3;
        let value = self.variables.value(&name).map_err(|error| PatternError { offset: from, ..error })?;
        Ok((name, value))
    }

    fn wrong(&self, message: impl Into<String>, help: impl Into<String>) -> PatternError {
        PatternError::new(self.position, message, help)
    }
}

fn not_ascii(offset: usize) -> PatternError {
    PatternError::new(offset, "class holds a character that is not ASCII", "write alternatives, like `{\u{e4},\u{f6}}`")
}

fn without_slash(mut set: ByteSet) -> ByteSet {
    set.remove(b'/');
    set
}
