//! What is wrong in a document: where, what, and what would be right. All of it at once.

use std::collections::BTreeSet;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is taken, and probably does not do what its author means.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a document, as people count: from 1. Line 0 is "nowhere in particular".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
    /// How many characters are meant; at least 1 where there is a line.
    pub width: u32,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The document, as [`crate::Document::path`] names it.
    pub path: String,
    /// Where in the document.
    pub place: Place,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line of the document.
    pub source: Option<String>,
}

/// Everything that is wrong, in the order of the documents and of the places in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

/// More than this are counted, not listed, and more than ten times this are not even counted: a hostile document could
/// have millions.
const LISTED: usize = 1000;
/// Longest line of a document that is looked into for what to show.
const LINE: usize = 16 << 10;
/// Longest message, in characters; what it quotes can be megabytes long.
const MESSAGE: usize = 600;
/// Longest part of a source line that is shown.
const SHOWN: usize = 160;

impl Diagnostics {
    /// The diagnostics.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|one| one.severity == Severity::Error)
    }

    /// One diagnostic about a document as a whole.
    #[must_use]
    pub fn of_document(path: &str, message: impl Into<String>, help: Option<String>) -> Self {
        Self(vec![Diagnostic {
            path: path.to_owned(),
            place: Place::default(),
            severity: Severity::Error,
            message: message.into(),
            help,
            source: None,
        }])
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Sorts by place within each document, keeps the order of the documents, and drops what is said twice.
    pub(crate) fn sorted(mut self) -> Self {
        let mut order: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for one in &self.0 {
            if seen.insert(one.path.clone()) {
                order.push(one.path.clone());
            }
        }
        let rank = |path: &str| order.iter().position(|known| known == path);
        self.0.sort_by(|a, b| {
            (rank(&a.path), a.place, a.severity, &a.message).cmp(&(rank(&b.path), b.place, b.severity, &b.message))
        });
        self.0.dedup();
        self
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, one) in self.0.iter().take(LISTED).enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{one}")?;
        }
        if self.0.len() > LISTED {
            writeln!(f, "\nand {} more", self.0.len() - LISTED)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity, printable(&self.message))?;
        let Place { line, column, width } = self.place;
        let number = if line == 0 { String::new() } else { line.to_string() };
        let gutter = " ".repeat(number.len().max(1));
        if line == 0 {
            writeln!(f, "{gutter}--> {}", printable(&self.path))?;
        } else {
            writeln!(f, "{gutter}--> {}:{line}:{column}", printable(&self.path))?;
            if let Some(source) = &self.source {
                let (shown, before) = excerpt(source, column as usize);
                let marked = (width.max(1) as usize).min(shown.chars().count().saturating_sub(before).max(1));
                writeln!(f, "{gutter} |\n{number} | {shown}")?;
                writeln!(f, "{gutter} | {}{}", " ".repeat(before), "^".repeat(marked))?;
            }
        }
        if let Some(help) = &self.help {
            writeln!(f, "{gutter} = help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// The part of a line around `column`, with nothing in it that a terminal obeys, and how many characters of it stand
/// before the column.
fn excerpt(source: &str, column: usize) -> (String, usize) {
    let before = column.saturating_sub(1);
    let skip = before.saturating_sub(SHOWN / 2);
    let plain = |c: char| if c.is_control() || is_format(c) { '\u{fffd}' } else { c };
    (source.chars().skip(skip).take(SHOWN).map(plain).collect(), before - skip)
}

/// `text` with control and direction-changing characters escaped.
fn printable(text: &str) -> String {
    // What is cut is what is quoted, in the middle.
    let length = text.chars().count();
    let cut = if length > MESSAGE { MESSAGE / 2..length - MESSAGE / 2 } else { length..length };
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == cut.start {
            out.push_str(" [...] ");
        }
        if cut.contains(&at) {
            continue;
        }
        if c.is_control() || is_format(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Characters that change how a terminal or an editor shows what is around them.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Collects what is wrong in one document.
pub(crate) struct Report<'a> {
    path: &'a str,
    lines: Vec<&'a str>,
    found: Diagnostics,
    /// Whether an error is among them.
    is_wrong: bool,
}

impl<'a> Report<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        Self { path, lines: text.split('\n').collect(), found: Diagnostics::default(), is_wrong: false }
    }

    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        self.push(Severity::Error, place, message.into(), help);
    }

    pub(crate) fn warning(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        self.push(Severity::Warning, place, message.into(), help);
    }

    fn push(&mut self, severity: Severity, place: Place, message: String, help: Option<String>) {
        let full = self.found.len() >= 10 * LISTED;
        if full && (severity == Severity::Warning || self.is_wrong) {
            return;
        }
        self.is_wrong |= severity == Severity::Error;
        let source = self.line(place).map(|line| line.trim_end_matches('\r').to_owned());
        self.found.push(Diagnostic { path: self.path.to_owned(), place, severity, message, help, source });
    }

    /// The line of a place, unless it is too long to be looked into.
    fn line(&self, place: Place) -> Option<&'a str> {
        let line = self.lines.get((place.line as usize).checked_sub(1)?)?;
        Some(*line).filter(|line| line.len() <= LINE)
    }

    pub(crate) fn finish(self) -> Diagnostics {
        self.found
    }

    /// The place `offset` characters into the scalar at `place`, if the scalar is written in the document as `text`.
    pub(crate) fn inside(&self, place: Place, text: &str, offset: usize) -> Place {
        let Some(line) = self.line(place) else { return place };
        let rest: String = line.chars().skip(place.column as usize - 1).take(text.chars().count() + 1).collect();
        let quote = usize::from(rest.starts_with(['"', '\'']));
        if rest.chars().skip(quote).take(text.chars().count()).eq(text.chars()) {
            Place { column: place.column + (quote + offset) as u32, width: 1, ..place }
        } else {
            place
        }
    }
}

/// `did you mean ...`, where one of `known` is near `word`.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean `{near}`?"))
}

/// `did you mean ...`, or else the list of all that is known.
pub(crate) fn near_or_list(word: &str, known: &[&str]) -> String {
    did_you_mean(word, known.iter().copied()).unwrap_or_else(|| match known {
        [] => "nothing is known here".to_owned(),
        [one] => format!("expected `{one}`"),
        _ => format!("expected one of `{}`", known.join("`, `")),
    })
}

/// The word of `known` that `word` is probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Words are short; a long one is like none of them.
    if word.chars().count() > 64 {
        return None;
    }
    let folded = word.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|candidate| (distance(&folded, &candidate.to_lowercase().replace('_', "-")), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().min(word.chars().count()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
