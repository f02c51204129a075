//! What a word for a policy on the command line means. A file has to look like one: in the directory in which a command is
//! typed an agent may have written, under any name, and a policy that is meant by its name must not be taken from there.

use std::path::Path;

use agent_monitor_policy::{Document, Library};
use anyhow::{Context, Result, anyhow, bail};

use crate::config::Config;
use crate::daemon::library::{Files, read_document};

/// Endings of policy files.
const ENDINGS: [&str; 2] = [".yaml", ".yml"];

/// A policy, as somebody typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// A file: it has a slash, or the ending of a policy file.
    File(&'a Path),
    /// The name of a policy of the daemon or of the policy directory, whatever files are where it was typed.
    Name(&'a str),
}

impl<'a> Word<'a> {
    /// Tells the one from the other by the word alone.
    pub fn of(word: &'a str) -> Self {
        if word.contains('/') || ENDINGS.iter().any(|ending| word.ends_with(ending)) {
            return Self::File(Path::new(word));
        }
        Self::Name(word)
    }

    /// The name, where only a policy that the daemon has will do.
    ///
    /// # Errors
    /// The word names a file.
    pub fn name_only(self) -> Result<&'a str> {
        match self {
            Self::Name(name) => Ok(name),
            Self::File(path) => bail!(
                "{} names a file, and here only the name of a policy will do that the daemon has; see agent-monitor status",
                path.display()
            ),
        }
    }
}

/// How to name a file, for who named a policy that is not there.
pub fn hint(name: &str) -> String {
    format!("a file is named with a slash or the ending .yaml, like ./{name}")
}

/// The document that a word names: a file, or a policy of the policy directory.
///
/// # Errors
/// It is not there, or can't be read.
pub fn document(word: &str, config: &Config) -> Result<Document> {
    match Word::of(word) {
        Word::File(path) => read_document(path).map_err(|errors| anyhow!("cannot use the policy:\n{errors}")),
        Word::Name(name) => {
            let directory = &config.policies_dir;
            let found = Files::new(directory).find(name, &directory.join("x").display().to_string());
            let found = found.map_err(|error| anyhow!("cannot look for the policy {name}: {error}"))?;
            found.with_context(|| format!("there is no policy {name} in {}; {}", directory.display(), hint(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_looks_like_one_and_not_what_is_there() {
        for name in ["coding-agent", "Cargo.toml", "a.b", "yaml", ""] {
            assert_eq!(Word::of(name), Word::Name(name), "{name} is no file, also where one is there");
        }
        for file in ["./coding-agent", "/x", "x/", "policy.yaml", "policy.yml", ".yaml"] {
            assert_eq!(Word::of(file), Word::File(Path::new(file)));
        }
    }

    #[test]
    fn a_name_is_looked_for_in_the_policy_directory_alone() {
        // Tests run in the directory of the crate, where this file is.
        assert!(Path::new("Cargo.toml").exists());
        let directory = std::env::temp_dir().join(format!("agent-monitor-{}-names", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory can be made");
        let config = Config { policies_dir: directory.clone(), ..Config::default() };
        let error = document("Cargo.toml", &config).expect_err("it is no policy").to_string();
        let wanted = format!("there is no policy Cargo.toml in {}; ", directory.display());
        assert!(error.starts_with(&wanted) && error.ends_with("like ./Cargo.toml"), "{error}");
        std::fs::write(directory.join("any.yaml"), "metadata: {name: known}\n").expect("file can be made");
        assert!(document("known", &config).is_ok_and(|found| found.path.ends_with("any.yaml")));
        std::fs::remove_dir_all(&directory).expect("directory can be removed");
    }

    #[test]
    fn where_only_a_name_will_do_a_file_is_refused() {
        assert_eq!(Word::of("locked").name_only().ok(), Some("locked"));
        let error = Word::of("./locked").name_only().expect_err("is a file").to_string();
        assert!(error.starts_with("./locked names a file"), "{error}");
    }
}
