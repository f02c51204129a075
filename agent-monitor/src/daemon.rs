//! Where the parts meet: the programs, the agents, the records, the control socket. They do not know each other; here they
//! are joined by bounded queues.

mod accounts;
mod applied;
mod catalogue;
mod change;
mod charge;
pub mod compiler;
mod configured;
mod directory;
mod expiry;
mod following;
mod leave;
pub mod library;
mod loss;
mod misses;
pub mod node;
mod notify;
pub mod policies;
mod pump;
mod readiness;
mod requests;
mod restore;
mod selftest;
mod serve;
mod signals;
mod start;
mod state;
mod strays;
mod uninstall;
mod view;
mod watch;
mod work;

use std::path::{Path, PathBuf};

use agent_monitor_policy::Protected;

pub use pump::Notice;
pub use serve::run;
pub use signals::Stop;
pub use start::{StartError, Started, Stay, start};
pub use uninstall::uninstall;

use crate::config::Config;

/// Version of the monitor.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A name that nobody has guessed: 8 hexadecimal digits.
pub fn random_name() -> String {
    let mut bytes = [0_u8; 4];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    filled.expect("the kernel's random numbers are there once the system is up");
    format!("{:08x}", u32::from_ne_bytes(bytes))
}

/// Paths of the monitor's own that no agent may touch, whatever its policy says.
pub fn protected(config: &Config, more: &[&Path]) -> Vec<Protected> {
    let lock = crate::control::lock_path(&config.socket);
    let own = [
        config.socket.as_path(),
        &lock,
        &config.policies_dir,
        &config.state_dir,
        Path::new(crate::config::DEFAULT_FILE),
    ];
    let trees = own.into_iter().chain(config.file.as_deref()).chain(more.iter().copied());
    let trees = trees.flat_map(names).map(Protected::Tree);
    // What was rotated lies beside the log, under its name with more after it.
    let logs = names(&config.audit_log).into_iter().map(Protected::Prefix);
    let mut protected: Vec<Protected> = trees.chain(logs).collect();
    protected.sort();
    protected.dedup();
    protected
}

/// The names under which the kernel knows a path: the file's, and that of a symbolic link to it.
pub fn names(path: &Path) -> Vec<String> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let link = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.clone(),
    };
    let mut names = Vec::new();
    for name in [resolve(&path), link] {
        match name.into_os_string().into_string() {
            Ok(name) => names.push(name),
            Err(name) => tracing::error!(
                "{} is not protected from agents, because it is not UTF-8; give it another name",
                name.display()
            ),
        }
    }
    names.dedup();
    names
}

/// The path as the kernel resolves it; of one that does not exist yet as much as does.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_paths_are_resolved_as_far_as_they_exist() {
        assert_eq!(resolve(Path::new("/proc/../does-not-exist/x/y")), Path::new("/does-not-exist/x/y"));
        let paths = protected(&Config::default(), &[Path::new("/tmp")]);
        assert!(paths.contains(&Protected::Tree("/tmp".to_owned())));
        assert!(paths.iter().any(|one| one.path().ends_with("control.sock.lock")));
        assert!(paths.contains(&Protected::Prefix("/var/log/agent-monitor/audit.jsonl".to_owned())));
    }

    #[test]
    fn a_configuration_that_was_named_is_protected_with_the_link_that_leads_to_it() {
        let root = std::env::temp_dir().join(format!("agent-monitor-{}-protected", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).expect("directory can be made");
        let root = root.canonicalize().expect("it is there");
        std::fs::write(root.join("file.toml"), "").expect("file can be written");
        std::os::unix::fs::symlink("file.toml", root.join("link.toml")).expect("link can be made");
        let config = Config::load(Some(&root.join("link.toml"))).expect("is valid");
        let paths = protected(&config, &[]);
        for name in ["file.toml", "link.toml"] {
            assert!(paths.contains(&Protected::Tree(root.join(name).display().to_string())), "{name}");
        }
        std::fs::remove_dir_all(root).expect("directory can be removed");
    }

    #[test]
    fn random_names_differ() {
        assert_ne!(random_name(), random_name());
    }
}
