//! One YAML document as a tree of nodes with their places. Refuses what policies may not use: aliases, tags, duplicate
//! keys, keys that are no text, a second document, too deep nesting.

use crate::diagnostic::{Place, Report};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::HashMap;

/// Most levels of lists and mappings.
const DEPTH: usize = 32;

/// A node and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Text that is quoted, or plain and of no other type.
    Text(String),
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(String),
    /// A number, as it is written.
    Number(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// What is wrong has been reported already.
    Broken,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// What kind of thing it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "text",
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Broken => "an error",
        }
    }
}

/// The document in `text`; `None` where there is none or it is no YAML, which has been reported.
pub(crate) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)), report, root: None };
    reader.read()?;
    reader.root
}

struct Reader<'a, 't, 'r> {
    parser: Parser<'t, StrInput<'t>>,
    report: &'a mut Report<'r>,
    root: Option<Node>,
}

/// A list or mapping that is being read.
struct Open {
    place: Place,
    list: Vec<Node>,
    /// `None` for a list.
    map: Option<OpenMap>,
    keys: HashMap<String, Place>,
}

/// The entries of a mapping, and the key whose value comes next.
type OpenMap = (Vec<Entry>, Option<(String, Place)>);

impl Reader<'_, '_, '_> {
    fn read(&mut self) -> Option<()> {
        let mut stack: Vec<Open> = Vec::new();
        while let Some(event) = self.parser.next_event() {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let place = place_of(error.marker(), 1);
                    self.report.error(place, format!("not YAML: {}", error.info()), None);
                    return None;
                }
            };
            let place = place_of(&span.start, width(&span));
            match event {
                Event::Scalar(text, style, _, tag) => {
                    let kind = if tag.is_some() { self.tagged(place) } else { scalar(text.into_owned(), style) };
                    self.close(&mut stack, Node { place, kind });
                }
                Event::Alias(_) => {
                    self.report.error(place, "aliases are not supported", Some("write the value again".to_owned()));
                    self.close(&mut stack, Node { place, kind: Kind::Broken });
                }
                Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) if tag.is_some() || stack.len() == DEPTH => {
                    if stack.len() == DEPTH {
                        self.report.error(place, format!("document is more than {DEPTH} levels deep"), None);
                        return None;
                    }
                    let kind = self.tagged(place);
                    self.skip()?;
                    self.close(&mut stack, Node { place, kind });
                }
                Event::SequenceStart(..) => stack.push(Open::new(place, None)),
                Event::MappingStart(..) => stack.push(Open::new(place, Some((Vec::new(), None)))),
                Event::SequenceEnd | Event::MappingEnd => {
                    let open = stack.pop()?;
                    let kind = match open.map {
                        None => Kind::List(open.list),
                        Some((entries, _)) => Kind::Map(entries),
                    };
                    self.close(&mut stack, Node { place: open.place, kind });
                }
                Event::DocumentStart(_) if self.root.is_some() => {
                    let help = Some("put it into a file of its own".to_owned());
                    self.report.error(Place { width: 3, ..place }, "second document in the file", help);
                    return Some(());
                }
                _ => {}
            }
        }
        if self.root.is_none() {
            self.report.error(Place { line: 1, column: 1, width: 1 }, "document is empty", None);
        }
        Some(())
    }

    fn tagged(&mut self, place: Place) -> Kind {
        self.report.error(place, "tags are not supported", Some("remove the tag".to_owned()));
        Kind::Broken
    }

    /// Passes over the rest of a list or mapping whose start was just read.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            match self.parser.next_event()?.ok()?.0 {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }

    /// Puts a whole node where it belongs.
    fn close(&mut self, stack: &mut [Open], node: Node) {
        let Some(open) = stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        let Some((entries, key)) = &mut open.map else {
            open.list.push(node);
            return;
        };
        if let Some((key, place)) = key.take() {
            if let Some(first) = open.keys.get(&key) {
                let help = format!("it is given in line {} already", first.line);
                self.report.error(place, format!("duplicate key `{key}`"), Some(help));
            } else {
                open.keys.insert(key.clone(), place);
                entries.push(Entry { key, place, value: node });
            }
            return;
        }
        let name = match node.kind {
            Kind::Text(name) | Kind::Number(name) | Kind::Bool(name) => name,
            Kind::Broken => String::new(),
            Kind::Null | Kind::List(_) | Kind::Map(_) => {
                self.report.error(node.place, format!("key is {}", node.what()), Some("keys are text".to_owned()));
                String::new()
            }
        };
        *key = Some((name, node.place));
    }
}

impl Open {
    fn new(place: Place, map: Option<OpenMap>) -> Self {
        Self { place: Place { width: 1, ..place }, list: Vec::new(), map, keys: HashMap::new() }
    }
}

fn place_of(marker: &saphyr_parser::Marker, width: u32) -> Place {
    Place { line: marker.line() as u32, column: marker.col() as u32 + 1, width }
}

fn width(span: &Span) -> u32 {
    if span.start.line() == span.end.line() {
        (span.end.col().saturating_sub(span.start.col()) as u32).max(1)
    } else {
        1
    }
}

/// The type of a scalar by the core schema of YAML 1.2.
fn scalar(text: String, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool(text),
        _ if is_number(&text) => Kind::Number(text),
        _ => Kind::Text(text),
    }
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let based = |prefix, radix| text.strip_prefix(prefix).is_some_and(|rest| digits(rest, radix));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let float = || {
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent = exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e), 10));
        let mantissa =
            digits(whole, 10) && (part.is_empty() || digits(part, 10)) || whole.is_empty() && digits(part, 10);
        mantissa && exponent
    };
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    digits(unsigned, 10) || based("0x", 16) || based("0o", 8) || float() || special
}
