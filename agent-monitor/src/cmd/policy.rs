//! `policy check`, `explain`, `test` and `show`; `export`, `apply` and `delete` are modules of their own.

mod change;
mod export;
mod word;

use std::collections::BTreeMap;
use std::path::PathBuf;

use agent_monitor_common::class::Verdict;
use agent_monitor_policy::{Compiled, Image, Options, Policy, cases, compile, explain, operation};
use anyhow::{Context, Result, anyhow};

use super::{print, small_runtime};
use crate::cli::{Format, PolicyCommand};
use crate::config::Config;
use crate::control::{api, client::Client, client::encode};
use crate::daemon::library::{Files, read_document};
pub use word::{Word, document, hint};

/// Something in the files is wrong.
const WRONG: u8 = 1;

/// Runs a command of `policy`.
pub fn policy(command: PolicyCommand, config: impl Fn() -> Result<Config>) -> Result<u8> {
    match command {
        PolicyCommand::Check { policies } => check(&policies, &config()?),
        PolicyCommand::Explain { policy, operation, object, new_object, variables } => {
            explain_one(&policy, (&operation, &object, new_object.as_deref()), variables.values(), &config()?)
        }
        PolicyCommand::Test { policy, cases } => test(&policy, &cases, &config()?),
        PolicyCommand::Export { seccomp: _, policy, variables } => {
            export::seccomp(&policy, variables.values(), &config()?)
        }
        PolicyCommand::Apply { files } => change::apply(&config()?, &files),
        PolicyCommand::Delete { names } => change::delete(&config()?, &names),
        PolicyCommand::Show { name, output } => show(&config()?, &name, output.output),
    }
}

fn check(policies: &[String], config: &Config) -> Result<u8> {
    let library = Files::new(&config.policies_dir);
    let options = Options { allow_unset: true, ..Options::default() };
    let mut code = 0;
    for word in policies {
        let document = match Word::of(word) {
            // What is wrong with one file does not hide what is wrong with the next.
            Word::File(path) => read_document(path),
            Word::Name(_) => Ok(document(word, config)?),
        };
        match document.and_then(|document| compile(document, &library, &options)) {
            Ok(Compiled { policy, warnings }) => {
                if !warnings.is_empty() {
                    eprintln!("{warnings}");
                }
                print::out(&format!("{word}: policy {} is valid\n", policy.name()))?;
            }
            Err(errors) => {
                eprintln!("{errors}");
                code = WRONG;
            }
        }
    }
    Ok(code)
}

fn explain_one(
    word: &str,
    (words, object, new_object): (&str, &str, Option<&str>),
    variables: BTreeMap<String, String>,
    config: &Config,
) -> Result<u8> {
    let operation =
        operation::parse(words, object, new_object).map_err(|error| anyhow!("operation {words} {object}: {error}"))?;
    let Some((_, image)) = image_of(word, variables, config)? else { return Ok(WRONG) };
    let explanation = explain(image.as_bytes(), &operation);
    let verdict = if explanation.verdict == Verdict::Allow { "allow" } else { "deny" };
    let mut text = format!("{verdict} ({})", explanation.reason);
    if let Some(rule) = explanation.rule {
        text.push_str(&format!(" by {rule}"));
    }
    if let Some(line) = explanation.rule_line {
        text.push_str(&format!(", line {line}"));
    }
    if let Some(reason) = explanation.rule_reason {
        text.push_str(&format!(": {reason}"));
    }
    text.push('\n');
    if let Some(suggestion) = explanation.suggestion {
        text.push_str("this rule would allow it:\n");
        text.push_str(&indented(&suggestion, "  "));
    }
    print::out(&text)?;
    Ok(0)
}

/// The policy that a word names, and its image; none where it is wrong, which is told.
fn image_of(word: &str, variables: BTreeMap<String, String>, config: &Config) -> Result<Option<(Policy, Image)>> {
    let options = Options { variables, allow_unset: false };
    match compile(document(word, config)?, &Files::new(&config.policies_dir), &options) {
        Ok(Compiled { policy, .. }) => {
            let image = policy.image(0, &[]).with_context(|| format!("policy {}", policy.name()))?;
            Ok(Some((policy, image)))
        }
        Err(errors) => {
            eprintln!("{errors}");
            Ok(None)
        }
    }
}

/// Each line with so much before it, and a line feed after the last.
pub fn indented(text: &str, before: &str) -> String {
    text.lines().map(|line| format!("{before}{line}\n")).collect()
}

fn test(word: &str, tables: &[PathBuf], config: &Config) -> Result<u8> {
    let library = Files::new(&config.policies_dir);
    let policy = document(word, config)?;
    let (mut passed, mut failed) = (0, 0);
    let mut text = String::new();
    let mut code = 0;
    for table in tables {
        let outcome = read_document(table)
            .and_then(|document| cases::parse(&document))
            .and_then(|cases| cases::run(&cases, &policy, &library, &Options::default()));
        match outcome {
            Ok(outcome) => {
                passed += outcome.passed;
                failed += outcome.failed.len();
                for failure in outcome.failed {
                    text.push_str(&format!("{failure}\n"));
                }
            }
            Err(errors) => {
                eprintln!("{errors}");
                code = WRONG;
            }
        }
    }
    print::out(&format!("{text}{passed} passed, {failed} failed\n"))?;
    Ok(if failed > 0 { WRONG } else { code })
}

fn show(config: &Config, name: &str, format: Format) -> Result<u8> {
    let client = Client::new(&config.socket);
    let path = format!("/v1/policies/{}", encode(Word::of(name).name_only()?));
    let policy: api::Policy = small_runtime()?.block_on(client.get(&path))?;
    match format {
        Format::Json => print::json(&policy)?,
        Format::Table => {
            let rows = [
                ("name", policy.name),
                ("state", policy.state),
                ("generation", policy.generation.to_string()),
                ("mode", policy.mode),
                ("source", policy.source.unwrap_or_default()),
                ("agents", policy.agents.to_string()),
                ("image", format!("{} bytes", policy.image_bytes)),
            ];
            let mut text: String = rows.iter().map(|(key, value)| format!("{key:11}{value}\n")).collect();
            text.extend(policy.messages.iter().map(|message| format!("\n{message}\n")));
            if let Some(document) = policy.document.filter(|document| !document.is_empty()) {
                text.push_str(&format!("\n{document}"));
            }
            print::out(&text)?;
        }
    }
    Ok(0)
}
