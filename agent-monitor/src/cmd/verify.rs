//! `verify`: whether an audit log is as it was written.

use std::path::Path;

use anyhow::{Context, Result};

use super::print;
use crate::cli::{Format, Verify};
use crate::config::Config;
use crate::sink::audit::open_files;
use crate::sink::audit::verify::{After, Checks, Head, Problem, Report, verify as verify_files, verify_open};

/// Prints what is wrong; exit status 1 if anything is.
pub fn verify(config: impl FnOnce() -> Result<Config>, options: &Verify) -> Result<u8> {
    let needs_config = options.files.is_empty() || options.head.is_none();
    let config = if needs_config { config()? } else { Config::default() };
    let after = match options.after.as_deref() {
        None => After::Start,
        Some("any") => After::Any,
        Some(hash) => After::Hash(hash.parse().map_err(anyhow::Error::msg).context("--after")?),
    };
    // Before the files: what is noted is in them then.
    let (head, why) = head(&config, options)?;
    let checks = Checks { head, after };
    let report = if options.files.is_empty() {
        open_files(&config.audit_log).and_then(|files| verify_open(&files, &checks))
    } else {
        verify_files(&options.files, &checks)
    };
    let report = report.context("cannot read an audit log")?;
    let report = Report { head_not_checked: why, ..report };
    match options.output {
        Format::Json => print::json(&report)?,
        Format::Table => print::out(&text(&report))?,
    }
    Ok(u8::from(!report.intact))
}

/// What was written last, or why that is not known.
fn head(config: &Config, options: &Verify) -> Result<(Option<Head>, Option<String>)> {
    if let Some(given) = &options.head {
        if given == Path::new("none") {
            return Ok((None, Some("--head none".to_owned())));
        }
        let head = Head::read(given).with_context(|| format!("cannot read the head {}", given.display()))?;
        return Ok((Some(head), None));
    }
    let canonical = |path: &Path| path.canonicalize().ok();
    let log = canonical(&config.audit_log);
    if !options.files.is_empty() && (log.is_none() || !options.files.iter().any(|file| canonical(file) == log)) {
        let why = format!("{} is not among the files; name a head with --head", config.audit_log.display());
        return Ok((None, Some(why)));
    }
    let path = config.audit_head();
    match Head::read(&path) {
        Ok(head) if Path::new(&head.log) == config.audit_log => Ok((Some(head), None)),
        Ok(head) => Ok((None, Some(format!("{} is of another log, {}", path.display(), head.log)))),
        Err(error) => Ok((None, Some(format!("cannot read {}: {error}", path.display())))),
    }
}

fn text(report: &Report) -> String {
    let mut text: String = report.problems.iter().map(|problem| line(problem, "")).collect();
    let more = report.problems_total - report.problems.len() as u64;
    if more > 0 {
        text.push_str(&format!("and {more} more problems\n"));
    }
    text.extend(report.notes.iter().map(|note| line(note, "note: ")));
    let more = report.notes_total - report.notes.len() as u64;
    if more > 0 {
        text.push_str(&format!("note: and {more} more notes\n"));
    }
    if report.start == "not_checked" {
        text.push_str("note: what was before the first record was not checked: --after any\n");
    }
    if let Some(why) = &report.head_not_checked {
        text.push_str(&format!("note: whether records at the end are missing was not checked: {why}\n"));
    }
    let range = match (report.first_seq, report.last_seq) {
        (Some(first), Some(last)) => format!("{} records, {first} to {last}", report.records),
        _ => "no record".to_owned(),
    };
    let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let files = count(report.files.len() as u64, "file");
    let verdict = if report.intact {
        "intact".to_owned()
    } else {
        format!("NOT intact, {}", count(report.problems_total, "problem"))
    };
    text.push_str(&format!("{files}, {range}: {verdict}\n"));
    if let Some(hash) = report.last_hash {
        text.push_str(&format!("last hash {hash}\n"));
    }
    text
}

fn line(problem: &Problem, prefix: &str) -> String {
    let Problem { file, line, seq, problem, detail } = problem;
    let line = line.map_or_else(String::new, |line| format!(":{line}"));
    let seq = seq.map_or_else(String::new, |seq| format!(" record {seq}:"));
    format!("{prefix}{file}{line}:{seq} {problem}: {detail}\n")
}
