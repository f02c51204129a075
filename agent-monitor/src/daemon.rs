//! Where the parts meet: the programs, the agents, the records, the control socket. They do not know each other; here they
//! are joined by bounded queues.

mod accounts;
mod catalogue;
mod charge;
mod configured;
pub mod directory;
mod leave;
pub mod library;
mod loss;
mod misses;
pub mod node;
mod notify;
pub mod policies;
mod pump;
mod requests;
mod restore;
mod selftest;
mod serve;
mod start;
mod state;
mod uninstall;
mod view;
mod watch;

use std::path::{Path, PathBuf};

pub use pump::Notice;
pub use serve::run;
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
pub fn protected(config: &Config, more: &[&Path]) -> Vec<String> {
    let lock = crate::control::lock_path(&config.socket);
    let own = [
        config.socket.as_path(),
        &lock,
        &config.policies_dir,
        &config.audit_log,
        &config.state_dir,
        Path::new(crate::config::DEFAULT_FILE),
    ];
    let resolved = own.into_iter().chain(more.iter().copied()).map(resolve);
    let mut paths: Vec<String> = resolved.filter_map(|path| path.into_os_string().into_string().ok()).collect();
    paths.sort();
    paths.dedup();
    paths
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
        assert!(paths.contains(&"/tmp".to_owned()) && paths.iter().any(|path| path.ends_with("control.sock.lock")));
    }

    #[test]
    fn random_names_differ() {
        assert_ne!(random_name(), random_name());
    }
}
