//! `agents list`, `show`, `bind` and `unbind`.

use anyhow::Result;

use super::policy::Word;
use super::{print, small_runtime};
use crate::cli::{Agents, Format};
use crate::config::Config;
use crate::control::api::{Agent, CreateAgent};
use crate::control::client::{Client, encode};

/// Runs a command of `agents`.
pub fn agents(config: &Config, command: Agents) -> Result<u8> {
    let client = Client::new(&config.socket);
    let runtime = small_runtime()?;
    match command {
        Agents::List(options) => {
            let agents: Vec<Agent> = runtime.block_on(client.get("/v1/agents"))?;
            match options.output {
                Format::Json => print::json(&agents)?,
                Format::Table => print::out(&table(&agents))?,
            }
        }
        Agents::Show { id, output } => {
            let agent: Agent = runtime.block_on(client.get(&format!("/v1/agents/{}", encode(&id))))?;
            match output.output {
                Format::Json => print::json(&agent)?,
                Format::Table => print::out(&details(&agent))?,
            }
        }
        Agents::Bind { cgroup, policy, ttl, agent } => {
            let request = CreateAgent {
                variables: agent.variables.values(),
                labels: agent.labels(),
                name: agent.name,
                policy: Some(Word::of(&policy).name_only()?.to_owned()),
                mode: agent.mode,
                cgroup: Some(cgroup),
                ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
                ..CreateAgent::default()
            };
            let agent: Agent = runtime.block_on(client.post("/v1/agents", &request))?;
            let until = agent.expires.map_or_else(String::new, |expires| format!(" until {expires}"));
            print::out(&format!("bound as agent {}{until}\n", agent.id))?;
        }
        Agents::Unbind { id } => {
            let agent: Agent = runtime.block_on(client.delete(&format!("/v1/agents/{}", encode(&id))))?;
            print::out(&format!("agent {} is unbound\n", agent.id))?;
        }
    }
    Ok(0)
}

fn table(agents: &[Agent]) -> String {
    let rows: Vec<Vec<String>> = agents
        .iter()
        .map(|agent| {
            let counts = &agent.counts;
            vec![
                agent.id.clone(),
                agent.policy.clone(),
                agent.mode.clone(),
                agent.origin.clone(),
                counts.denied.to_string(),
                counts.audited.to_string(),
                counts.lost.to_string(),
                expires(agent),
                agent.cgroup.clone().unwrap_or_default(),
            ]
        })
        .collect();
    print::table(&["AGENT", "POLICY", "MODE", "ORIGIN", "DENIED", "AUDITED", "LOST", "EXPIRES", "CGROUP"], &rows)
}

/// When a binding ends; a word where it has, or has no end.
fn expires(agent: &Agent) -> String {
    match &agent.expires {
        None => "never".to_owned(),
        Some(time) if agent.expired => format!("expired {time}"),
        Some(time) => time.clone(),
    }
}

fn details(agent: &Agent) -> String {
    let labels: Vec<String> = agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let counts = &agent.counts;
    let rows = [
        ("id", agent.id.clone()),
        ("name", agent.name.clone()),
        ("cgroup", agent.cgroup.clone().unwrap_or_default()),
        ("cgroup id", agent.cgroup_id.to_string()),
        ("policy", format!("{}, generation {}", agent.policy, agent.generation)),
        ("mode", agent.mode.clone()),
        ("origin", agent.origin.clone()),
        ("labels", labels.join(" ")),
        ("expires", expires(agent)),
        (
            "denied",
            format!(
                "{} ({} recorded, {} more in these records, {} lost)",
                counts.denied, counts.written, counts.folded, counts.lost
            ),
        ),
        ("audited", counts.audited.to_string()),
        ("faults", counts.faults.to_string()),
    ];
    rows.iter().map(|(key, value)| format!("{}\n", format!("{key:11}{value}").trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_one_line() {
        let agent = Agent { id: "a-1".into(), policy: "p".into(), cgroup: Some("/x".into()), ..Agent::default() };
        let text = table(std::slice::from_ref(&agent));
        assert_eq!(text.lines().count(), 2);
        assert_eq!(expires(&agent), "never");
        let expired = Agent { expires: Some("t".into()), expired: true, ..agent.clone() };
        assert!(details(&expired).contains("expires    expired t"));
        assert!(text.contains("a-1") && details(&agent).contains("cgroup     /x"), "{text}");
    }
}
