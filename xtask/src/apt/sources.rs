//! Reads the machine's own apt sources (both forms) to learn its Debian mirror and keyring. Pure: text in, sources out.

/// One repository that the machine uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The mirror, as apt writes it.
    pub uri: String,
    /// The suite, such as `bookworm` or `bookworm-updates`.
    pub suite: String,
    /// The file of keys that signs it, where one is named.
    pub signed_by: Option<String>,
}

/// Reads a file of the one-line form (`deb [signed-by=FILE] URI SUITE COMPONENT...`).
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    words.any(|component| component == "main").then(|| Source {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        signed_by: signed_by.filter(|keys| keys.starts_with('/')).map(str::to_owned),
    })
}

/// Reads a file of the deb822 form (`Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:`).
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(parse_stanza).collect()
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let has = |field: &str, word: &str| words(lines, field).any(|found| found == word);
    if !has("types", "deb") || !has("components", "main") || has("enabled", "no") {
        return Vec::new();
    }
    // A key written into the file itself, and not a file of keys, leaves this empty: see `Mirror::find`.
    let signed_by = words(lines, "signed-by").find(|word| word.starts_with('/'));
    let Some(uri) = words(lines, "uris").next() else {
        return Vec::new();
    };
    words(lines, "suites")
        .map(|suite| Source { uri: uri.to_owned(), suite: suite.to_owned(), signed_by: signed_by.map(str::to_owned) })
        .collect()
}

/// The words of a field, with those on its continuation lines.
fn words<'a>(lines: &'a [&'a str], field: &'a str) -> impl Iterator<Item = &'a str> {
    let mut inside = false;
    lines
        .iter()
        .filter_map(move |line| {
            if line.starts_with([' ', '\t']) {
                return inside.then_some(*line);
            }
            let (name, value) = line.split_once(':')?;
            inside = name.eq_ignore_ascii_case(field);
            inside.then_some(value)
        })
        .flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use super::{Source, parse_deb822, parse_list};

    fn source(suite: &str, keys: Option<&str>) -> Source {
        Source { uri: "http://mirror.test/debian".into(), suite: suite.into(), signed_by: keys.map(str::to_owned) }
    }

    #[test]
    fn one_line_sources_are_read_with_their_options() {
        let text = "# deb http://old.test x main\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian stable main\n\
                    deb-src http://mirror.test/debian stable main\ndeb http://mirror.test/debian sid contrib main # all\n";
        assert_eq!(parse_list(text), [source("stable", Some("/k.gpg")), source("sid", None)]);
    }

    #[test]
    fn deb822_sources_are_read_with_continuation_lines() {
        let text = "Types: deb deb-src\n# a note\nURIs: http://mirror.test/debian\nSuites: a\n b\nComponents: main\nSigned-By: /k.gpg\n\n\
                    Types: deb\nURIs: http://other.test\nSuites: c\nComponents: main\nEnabled: no\n";
        assert_eq!(parse_deb822(text), [source("a", Some("/k.gpg")), source("b", Some("/k.gpg"))]);
    }

    #[test]
    fn a_key_inside_the_sources_file_is_no_keyring() {
        let text = "Types: deb\nURIs: http://mirror.test/debian\nSuites: a\nComponents: main\nSigned-By:\n -----BEGIN\n .\n mQ/x\n";
        assert_eq!(parse_deb822(text), [source("a", None)]);
    }
}
