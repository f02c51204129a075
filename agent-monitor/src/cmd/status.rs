//! `status`: what is enforced on this node now.

use anyhow::Result;

use super::{print, small_runtime};
use crate::cli::{Format, Output};
use crate::config::Config;
use crate::control::api::Status;
use crate::control::client::Client;

/// Asks the daemon and prints.
pub fn status(config: &Config, options: &Output) -> Result<u8> {
    let status: Status = small_runtime()?.block_on(Client::new(&config.socket).get("/v1/status"))?;
    match options.output {
        Format::Json => print::json(&status)?,
        Format::Table => print::out(&text(&status))?,
    }
    Ok(0)
}

fn text(status: &Status) -> String {
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut text = format!(
        "node {} (kernel {}): agent-monitor {}, process {}, {ready}, enforcement {}\n",
        status.node_name, status.kernel, status.version, status.pid, status.enforcement
    );
    text.extend(status.reasons.iter().map(|reason| format!("  {reason}\n")));
    let limited = match (status.agents_limited, status.agents_expired) {
        (0, 0) => String::new(),
        (limited, expired) => format!(" ({limited} bound for a time, {expired} expired)"),
    };
    text.push_str(&format!("{} agents{limited}, agents root {}\n", status.agents, status.agents_root));
    let attached = status.hooks.iter().filter(|hook| hook.state == "attached").count();
    text.push_str(&format!("{attached} of {} hooks attached\n", status.hooks.len()));
    let others = status.hooks.iter().filter(|hook| hook.state != "attached");
    text.extend(others.map(|hook| format!("  {}: {} {}\n", hook.name, hook.state, hook.detail)));
    let rows: Vec<Vec<String>> = status
        .policies
        .iter()
        .map(|policy| {
            let (name, state, mode) = (policy.name.clone(), policy.state.clone(), policy.mode.clone());
            vec![
                name,
                state,
                mode,
                policy.generation.to_string(),
                policy.agents.to_string(),
                policy.source.clone().unwrap_or_default(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&print::table(&["POLICY", "STATE", "MODE", "GENERATION", "AGENTS", "SOURCE"], &rows));
    let counted = status.operations.iter().filter(|operations| operations.count > 0);
    let rows: Vec<Vec<String>> =
        counted.map(|one| vec![one.class.clone(), one.verdict.clone(), one.count.to_string()]).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&print::table(&["CLASS", "VERDICT", "OPERATIONS"], &rows));
    }
    let lost: Vec<String> = status
        .losses
        .iter()
        .filter(|loss| loss.count > 0)
        .map(|loss| format!("  {} {}: {}\n", loss.stage, loss.reason, loss.count))
        .collect();
    text.push_str(if lost.is_empty() { "\nnothing was lost\n" } else { "\nlost:\n" });
    text.extend(lost);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{Hook, LossCount, Policy};

    #[test]
    fn what_is_wrong_is_shown() {
        let status = Status {
            agents_expired: 2,
            reasons: vec!["the audit log can't be written".into()],
            hooks: vec![
                Hook { name: "file_open".into(), state: "attached".into(), ..Hook::default() },
                Hook { name: "capable".into(), state: "refused".into(), detail: "why".into(), ..Hook::default() },
            ],
            policies: vec![Policy { name: "p".into(), ..Policy::default() }],
            losses: vec![LossCount { stage: "kernel".into(), reason: "denials_ring_full".into(), count: 3 }],
            ..Status::default()
        };
        let text = text(&status);
        for expected in [
            "not ready",
            "(0 bound for a time, 2 expired)",
            "the audit log can't be written",
            "1 of 2 hooks",
            "capable: refused why",
            "kernel denials_ring_full: 3",
        ] {
            assert!(text.contains(expected), "{expected} is missing in:\n{text}");
        }
    }
}
