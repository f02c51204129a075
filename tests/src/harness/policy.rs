//! Policies of scenarios.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::daemon::PLACE;

/// Allows nothing that there is.
pub const NOTHING: &str = "files:\n  - {allow: [read], paths: [\"/none\"]}\n";

/// The daemon's policy directory.
pub const DIRECTORY: &str = "/etc/agent-monitor/policies";

/// A policy file in the daemon's directory, gone at the end.
pub struct PolicyFile(pub &'static str);

impl PolicyFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(self.0)
    }

    /// Puts this text there, whole from the first moment that it can be seen.
    pub fn write(&self, text: &str) -> Result<()> {
        // Also where the command line finds it, see a_broken_policy_gives_all_errors_and_changes_nothing.
        let hidden = Path::new(PLACE).join(self.0);
        fs::write(&hidden, text)?;
        fs::copy(&hidden, self.path().with_extension("new"))?;
        Ok(fs::rename(self.path().with_extension("new"), self.path())?)
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

/// A whole document: `spec` is its inside, in which `$W` stands for the scenario's own directory.
pub fn document(name: &str, spec: &str, workspace: &Path) -> String {
    let spec = spec.replace("$W", &workspace.to_string_lossy());
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata:\n  name: {name}\nspec:\n{spec}")
}

/// A document that allows this access to one file, and nothing else.
pub fn allowing(name: &str, access: &str, file: &Path) -> String {
    document(name, &format!("files:\n  - {{allow: [{access}], paths: [\"{}\"]}}\n", file.display()), Path::new("/"))
}

/// A record of what became of a policy.
pub fn change(name: &str, action: &str) -> Value {
    json!({"type": "policy", "action": action, "policy": {"name": name}})
}

/// A policy that allows everything that a policy can allow.
pub const ALL: &str = r#"
files:
  - {allow: [all], paths: ["/**", "anon:memfd", "anon:deleted", "anon:pipe", "anon:socket", "anon:other"]}
exec:
  - {allow: ["/**", "anon:memfd", "anon:deleted"]}
network:
  - {allow: [create], sockets: [inet, inet6, inet-raw, inet6-raw, unix, netlink-route, netlink, packet, vsock, alg]}
  - {allow: [connect, send], to: {addresses: ["0.0.0.0/0", "::/0"]}}
  - {allow: [listen], at: {addresses: ["0.0.0.0/0", "::/0"]}}
  - {allow: [connect, send], to: {unix: ["/**", "@**"]}}
  - {allow: [listen], at: {unix: ["/**", "@**"]}}
privileges:
  - allow: [ptrace-same-agent, signal-same-agent, signal-any, io-uring-sqpoll, user-namespace, mount, chroot, bpf, perf-events,
            kernel-module, kexec, reboot, set-time, syslog, keyring, swap, quota, raw-io, setuid-exec, io-uring,
            io-uring-command, userfaultfd, secretmem, resources-any, ipc-any, subvolumes, set-id-bits]
capabilities:
  - allow: [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_NET_ADMIN,
            CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_RESOURCE, CAP_MKNOD,
            CAP_SYS_BOOT, CAP_SYS_TIME, CAP_SYS_RAWIO, CAP_SYS_MODULE, CAP_SYSLOG, CAP_SYS_NICE, CAP_BPF, CAP_PERFMON,
            CAP_SETUID, CAP_SETGID, CAP_IPC_LOCK, CAP_IPC_OWNER]
"#;
