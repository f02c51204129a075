//! The configuration of daemon and command line: a TOML file in which every setting has a default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Where the configuration is looked for when no option names another file.
pub const DEFAULT_FILE: &str = "/etc/agent-monitor/config.toml";

/// All settings. `docs/events.md` describes each.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the node in records; the host name where it is empty.
    pub node_name: String,
    /// Cgroup below which every new cgroup is an agent's.
    pub agents_root: String,
    /// Cgroup below which `run` makes its own where no daemon runs.
    pub run_root: String,
    /// Directory of policies, watched by the daemon; includes are looked for here last.
    pub policies_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// Group whose members may read from the control socket, by its name or number; empty: root alone.
    pub control_group: String,
    /// Audit log.
    pub audit_log: PathBuf,
    /// How the audit log is kept.
    pub audit: Audit,
    /// Directory for what a later daemon must know again.
    pub state_dir: PathBuf,
    /// Where metrics and health are served; empty: nowhere.
    pub metrics_address: String,
    /// Most cgroups bound at once.
    pub bindings: u32,
    /// Start even where the kernel lets only a part be enforced.
    pub allow_partial: bool,
    /// How long stopping may take, in seconds, until what is still queued is given up and counted as lost.
    pub drain_seconds: u64,
    /// Where file systems of the kernel are mounted.
    pub roots: Mounts,
    /// Cgroups outside the agents root that are agents too.
    pub agents: Vec<StaticAgent>,
    /// The file that all this was read from, if an option named it.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// How the audit log is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Bytes from which on the file is rotated; 0: never for its size.
    pub max_bytes: u64,
    /// Seconds since its first record after which the file is rotated; 0: never for its age.
    pub max_age_seconds: u64,
    /// Rotated files that are kept; 0: all.
    pub keep: u32,
    /// When the file is synced to its disk.
    pub fsync: Fsync,
    /// How often it is synced with `interval`, in seconds.
    pub fsync_seconds: u64,
}

/// When the audit log is synced to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// When the kernel thinks fit: records of the last half minute are lost where the machine stops.
    Never,
    /// Every `fsync_seconds`, and when the daemon stops.
    Interval,
    /// Before a record counts as written.
    Always,
}

/// Where file systems of the kernel are mounted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mounts {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// The unified cgroup hierarchy; empty: the first one that is mounted.
    pub cgroup: PathBuf,
    /// The BPF file system.
    pub bpffs: PathBuf,
}

/// A cgroup that is an agent's by configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticAgent {
    /// Path of the cgroup in the hierarchy.
    pub cgroup: String,
    /// Name of its policy.
    pub policy: String,
    /// Name of the agent.
    pub name: Option<String>,
    /// `enforce` or `audit`; the policy's own where it is not given.
    pub mode: Option<String>,
    /// Labels for its records.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Values for the policy's variables.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            agents_root: "agents.slice".to_owned(),
            run_root: "agent-monitor-run.slice".to_owned(),
            policies_dir: "/etc/agent-monitor/policies".into(),
            socket: "/run/agent-monitor/control.sock".into(),
            control_group: String::new(),
            audit_log: "/var/log/agent-monitor/audit.jsonl".into(),
            audit: Audit::default(),
            state_dir: "/var/lib/agent-monitor".into(),
            metrics_address: "127.0.0.1:9478".to_owned(),
            bindings: agent_monitor_common::limit::BINDINGS,
            allow_partial: false,
            drain_seconds: 10,
            roots: Mounts::default(),
            agents: Vec::new(),
            file: None,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { max_bytes: 0, max_age_seconds: 0, keep: 0, fsync: Fsync::Interval, fsync_seconds: 1 }
    }
}

impl Audit {
    /// Smallest file that is worth rotating: one record alone can have half as many bytes.
    const LEAST_BYTES: u64 = 64 << 10;

    fn check(&self) -> Result<()> {
        if (1..Self::LEAST_BYTES).contains(&self.max_bytes) {
            bail!(
                "audit.max_bytes = {} is too small; use at least {}, or 0 to rotate by age or not at all",
                self.max_bytes,
                Self::LEAST_BYTES
            );
        }
        if self.keep > 0 && self.max_bytes == 0 && self.max_age_seconds == 0 {
            bail!("audit.keep = {} removes nothing: set audit.max_bytes or audit.max_age_seconds too", self.keep);
        }
        if self.fsync_seconds == 0 {
            bail!("audit.fsync_seconds = 0 is no interval; write audit.fsync = \"always\" to sync each time");
        }
        Ok(())
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), cgroup: PathBuf::new(), bpffs: "/sys/fs/bpf".into() }
    }
}

impl Config {
    /// Reads `file`; without one the default file, or all defaults where that is not there.
    ///
    /// # Errors
    /// The file can't be read, is no TOML, has an unknown setting or a value that makes no sense; the error says where.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .map(|config| Self { file: file.map(Path::to_owned), ..config })
                .with_context(|| format!("configuration {}", path.display())),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Self::parse(""),
            Err(error) => Err(error).with_context(|| format!("cannot read the configuration {}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        // TOML's own message ends with a line feed and shows the place.
        let mut config: Self =
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        if config.node_name.is_empty() {
            config.node_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        for (setting, value) in [("agents_root", &self.agents_root), ("run_root", &self.run_root)] {
            let names: Vec<_> = value.trim_matches('/').split('/').collect();
            if names.iter().any(|name| name.is_empty() || *name == "." || *name == "..") {
                bail!("{setting} = {value:?} is no path of a cgroup; write it like \"agents.slice\"");
            }
        }
        if below(&self.run_root, &self.agents_root) || below(&self.agents_root, &self.run_root) {
            bail!("run_root {:?} and agents_root {:?} may not lie in each other", self.run_root, self.agents_root);
        }
        if self.bindings == 0 {
            bail!(
                "bindings = 0 leaves no room for any agent; the default is {}",
                agent_monitor_common::limit::BINDINGS
            );
        }
        for path in [&self.policies_dir, &self.socket, &self.audit_log, &self.state_dir] {
            if !path.is_absolute() {
                bail!("path {:?} is relative; write it from the root", path.display());
            }
        }
        self.audit.check()?;
        self.metrics_address()?;
        Ok(())
    }

    /// Where the daemon notes the last record of the audit log.
    pub fn audit_head(&self) -> PathBuf {
        self.state_dir.join("head.json")
    }

    /// Where metrics and health are served.
    ///
    /// # Errors
    /// The setting is no address with a port.
    pub fn metrics_address(&self) -> Result<Option<SocketAddr>> {
        if self.metrics_address.is_empty() {
            return Ok(None);
        }
        let parsed = self.metrics_address.parse();
        let hint = || {
            format!(
                "metrics_address = {:?} is no address with a port; write it like \"127.0.0.1:9478\"",
                self.metrics_address
            )
        };
        parsed.map(Some).with_context(hint)
    }
}

/// Whether cgroup `path` is `parent` or lies below it.
fn below(path: &str, parent: &str) -> bool {
    let (path, parent) = (path.trim_matches('/'), parent.trim_matches('/'));
    path == parent || path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", Config::parse(text).expect_err("must be refused"))
    }

    #[test]
    fn an_empty_file_gives_the_documented_defaults() {
        let config = Config::parse("").expect("defaults are valid");
        assert_eq!(config.agents_root, "agents.slice");
        assert_eq!(config.socket, Path::new("/run/agent-monitor/control.sock"));
        assert_eq!(config.metrics_address().expect("default is valid"), Some(([127, 0, 0, 1], 9478).into()));
        assert!(!config.node_name.is_empty());
    }

    #[test]
    fn every_setting_can_be_set() {
        let text = r#"
            node_name = "n1"
            agents_root = "a.slice"
            run_root = "r.slice"
            policies_dir = "/p"
            socket = "/s"
            control_group = "monitor"
            audit_log = "/l"
            state_dir = "/v"
            metrics_address = ""
            bindings = 10
            allow_partial = true
            drain_seconds = 1
            [audit]
            max_bytes = 104857600
            max_age_seconds = 86400
            keep = 10
            fsync = "always"
            fsync_seconds = 5
            [roots]
            sys = "/x/sys"
            proc = "/x/proc"
            cgroup = "/x/cgroup"
            bpffs = "/x/bpf"
            [[agents]]
            cgroup = "/system.slice/a.service"
            policy = "base"
            name = "a"
            mode = "audit"
            labels = {team = "x"}
            variables = {WORKSPACE = "/w"}
        "#;
        let config = Config::parse(text).expect("is valid");
        assert_eq!(config.metrics_address().expect("is valid"), None);
        assert_eq!(config.agents.len(), 1);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let message = error("node_name = \"a\"\nagent_root = \"x\"\n");
        assert!(message.contains("agent_root") && message.contains("line 2"), "{message}");
        assert!(error("bindings = -1").contains("bindings"));
        assert!(error("bindings = 0").contains("no room"));
        assert!(error("[audit]\nmax_bytes = 100").contains("audit.max_bytes"));
        assert!(error("[audit]\nkeep = 3").contains("audit.max_age_seconds"));
        assert!(error("[audit]\nfsync_seconds = 0").contains("always"));
        assert!(error("[audit]\nfsync = \"sometimes\"").contains("interval"));
        assert!(error("socket = \"run/x\"").contains("relative"));
        assert!(error("metrics_address = \"localhost:1\"").contains("127.0.0.1:9478"));
        assert!(error("agents_root = \"/\"").contains("agents_root"));
        assert!(error("agents_root = \"a/../b\"").contains("agents_root"));
        assert!(error("run_root = \"agents.slice/run\"").contains("may not lie in each other"));
        assert!(error("[[agents]]\ncgroup = \"/x\"").contains("policy"));
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        assert!(Config::load(Some(Path::new("/does/not/exist.toml"))).is_err());
    }
}
