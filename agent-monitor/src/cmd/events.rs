//! `events`: the audit stream, recorded or as it comes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};

use super::run::describe;
use super::{print, small_runtime};
use crate::cli::{EventFormat, Events};
use crate::config::Config;
use crate::control::client::{Client, encode};
use crate::record::{Body, Record};
use crate::sink::audit::open_files;
use crate::sink::follow::{Filter, Published};

/// Longest line that is read from the log; no record is as long.
const LINE_BYTES: u64 = 1 << 20;

/// Prints the stream.
pub fn events(config: &Config, options: &Events) -> Result<u8> {
    if options.follow {
        follow(config, options)?
    } else {
        recorded(config, options)?
    }
    Ok(0)
}

fn follow(config: &Config, options: &Events) -> Result<()> {
    let agent = options.agent.as_ref().map_or_else(String::new, |agent| format!("&agent={}", encode(agent)));
    let path = format!("/v1/events?denied={}{agent}", options.denied);
    small_runtime()?.block_on(async {
        let mut lines = Client::new(&config.socket).lines(&path).await?;
        while let Some(line) = lines.next().await.context("the daemon broke off the events")? {
            show(&line, options.output)?;
        }
        Ok(())
    })
}

fn recorded(config: &Config, options: &Events) -> Result<()> {
    let filter = Filter { denied: options.denied, agent: options.agent.clone() };
    for (path, file) in open_files(&config.audit_log).context("cannot read the audit log")? {
        print_file(file, &path, &filter, options.output)?;
    }
    Ok(())
}

fn print_file(file: File, path: &Path, filter: &Filter, output: EventFormat) -> Result<()> {
    let mut reader = BufReader::new(file);
    loop {
        let mut bytes = Vec::new();
        reader
            .by_ref()
            .take(LINE_BYTES)
            .read_until(b'\n', &mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        // A line that was cut off by a full disk is no record, and the next ones are.
        match Record::parse(line) {
            Ok(record) if filter.takes(&Published::new(&record, String::new())) => show(line, output)?,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a line of the audit log is no record"),
        }
    }
}

fn show(line: &str, format: EventFormat) -> Result<()> {
    match format {
        EventFormat::Json => print::out(&format!("{line}\n")),
        EventFormat::Line => {
            print::out(&(short(&Record::parse(line).context("the daemon sent what is no record")?) + "\n"))
        }
    }
}

/// A record as a short line.
fn short(record: &Record) -> String {
    let what = match &record.body {
        Body::Operation(operation) => {
            let access =
                if operation.access.is_empty() { String::new() } else { format!(":{}", operation.access.join(",")) };
            let rule = operation
                .policy
                .rule
                .as_ref()
                .map_or_else(|| operation.reason.clone(), |rule| format!("{} {rule}", operation.reason));
            format!(
                "{} {}{access} {} ({rule}) agent={} pid={} binary={}",
                operation.verdict,
                operation.class,
                describe(&operation.object),
                operation.agent.id,
                operation.process.pid,
                operation.process.binary.as_deref().unwrap_or("?")
            )
        }
        Body::Agent(change) => {
            format!("agent {} {} policy={} mode={}", change.action, change.agent.id, change.policy.name, change.mode)
        }
        Body::Policy(change) => {
            format!("policy {} {} generation={}", change.action, change.policy.name, change.policy.generation)
        }
        Body::Monitor(change) => {
            format!("monitor {} enforcement={} {}", change.action, change.enforcement, change.messages.join("; "))
        }
        Body::Loss(loss) => {
            let agent = loss.agent.as_ref().map_or_else(String::new, |agent| format!(" agent={agent}"));
            let detail = loss.detail.as_ref().map_or_else(String::new, |detail| format!(" {detail}"));
            format!("loss {} {} {}{agent}{detail}", loss.stage, loss.reason, loss.count)
        }
    };
    let seq = record.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
    format!("{} {seq} {}", record.time, what.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Loss;

    #[test]
    fn a_loss_is_one_short_line() {
        let loss = Loss {
            stage: "kernel".into(),
            reason: "denials_ring_full".into(),
            count: 3,
            agent: Some("a".into()),
            ..Loss::default()
        };
        let record = Record { time: "t".into(), seq: Some(4), node_name: "n".into(), body: Body::Loss(loss) };
        assert_eq!(short(&record), "t 4 loss kernel denials_ring_full 3 agent=a");
    }
}
