//! `policy apply` and `policy delete`: policies that the daemon keeps.

use std::path::{Path, PathBuf};

use agent_monitor_policy::name_of;
use anyhow::{Context, Result, anyhow};

use super::{WRONG, Word};
use crate::cmd::{print, small_runtime};
use crate::config::Config;
use crate::control::api::{ApplyPolicy, ChangedPolicy};
use crate::control::client::{Client, ClientError, encode};
use crate::daemon::library::read_document;

/// Puts the policies of files in force. One that is refused does not keep the next from being tried.
pub fn apply(config: &Config, files: &[PathBuf]) -> Result<u8> {
    each(files, |file| {
        let (name, body) = request(file)?;
        let changed: ChangedPolicy = put(config, &name, &body)?;
        changed.policy.messages.iter().for_each(|message| eprintln!("{message}"));
        let generation = match changed.policy.generation {
            // It has no image of its own, and so no generation.
            0 => String::new(),
            generation => format!(", generation {generation}"),
        };
        print::out(&format!("policy {name} {}{generation}\n", changed.change))
    })
}

/// Deletes policies that were applied.
pub fn delete(config: &Config, names: &[String]) -> Result<u8> {
    each(names, |name| {
        let path = format!("/v1/policies/{}", encode(Word::of(name).name_only()?));
        let changed: ChangedPolicy = small_runtime()?.block_on(Client::new(&config.socket).delete(&path))?;
        print::out(&format!("policy {name} {}{}\n", changed.change, emptied(changed.agents_emptied)))
    })
}

/// Does something with each, and tells of each that failed; no daemon is told once.
fn each<T>(all: &[T], one: impl Fn(&T) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for item in all {
        let Err(error) = one(item) else { continue };
        if matches!(error.downcast_ref(), Some(ClientError::NoSocket(_) | ClientError::NoAnswer { .. })) {
            return Err(error);
        }
        eprintln!("error: {error:#}");
        code = WRONG;
    }
    Ok(code)
}

fn request(file: &Path) -> Result<(String, ApplyPolicy)> {
    let document = read_document(file).map_err(|errors| anyhow!("cannot apply the policy:\n{errors}"))?;
    let name = name_of(&document).map_err(|errors| anyhow!("cannot apply the policy:\n{errors}"))?;
    let shown = file.display();
    let name = name.with_context(|| format!("{shown} has no name: write `metadata: {{name: NAME}}`"))?;
    Ok((name, ApplyPolicy { path: document.path, text: document.text }))
}

fn put(config: &Config, name: &str, body: &ApplyPolicy) -> Result<ChangedPolicy> {
    let path = format!("/v1/policies/{}", encode(name));
    Ok(small_runtime()?.block_on(Client::new(&config.socket).put(&path, body))?)
}

fn emptied(agents: u64) -> String {
    match agents {
        0 => String::new(),
        1 => "; 1 agent that had it may do nothing any more".to_owned(),
        agents => format!("; {agents} agents that had it may do nothing any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_sent_whole_under_its_own_name() {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-apply.yaml", std::process::id()));
        for (text, name) in [("metadata: {name: a}\n", Some("a")), ("spec: {}\n", None), ("spec: [", None)] {
            std::fs::write(&path, text).expect("file can be written");
            let request = request(&path).map(|(name, body)| (name, body.text)).ok();
            assert_eq!(request, name.map(|name| (name.to_owned(), text.to_owned())));
        }
        std::fs::remove_file(path).expect("file can be removed");
    }

    #[test]
    fn who_deletes_is_told_of_the_agents() {
        assert_eq!([0, 1, 2].map(|agents| emptied(agents).contains("agent")), [false, true, true]);
    }
}
