//! io_uring is no way round: its operations meet the same hooks, also where a thread of the kernel does them.

use serde_json::json;

use super::socket_connect::internet;
use crate::harness::{Cycle, Outcome, Process, Scenario, Scene, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node: io_uring_opens_and_connects_nothing_that_is_denied];

fn io_uring_opens_and_connects_nothing_that_is_denied(scene: &mut Scene<'_>) -> Outcome {
    let (secret, open) = (scene.file("secret", "s"), scene.file("open", "o"));
    if Process::start()?.run(&step!("ring-open", open))?.0 == libc::ENOSYS {
        return Err(skip("this kernel has no io_uring"));
    }
    let spec = r#"
files:
  - {allow: [read], paths: ["$W/open"]}
network:
  - {allow: [create], sockets: [inet]}
  - {allow: [connect], to: {addresses: ["127.0.0.2"], protocols: [udp]}}
privileges:
  - {allow: [io-uring]}
capabilities:
  - {allow: [CAP_IPC_LOCK]}
"#;
    let opened = || record("file_open", &["read"], json!({"path": secret}), "no_rule", None);
    let connected = || record("socket_connect", &["connect"], internet("udp", "127.0.0.1", 9), "no_rule", None);
    Cycle::new()
        .allowed(step!("ring-open", open))
        .allowed(step!("ring-open", open, "worker"))
        .denied(step!("ring-open", secret), opened())
        .denied(step!("ring-open", secret, "worker"), opened())
        .allowed(step!("ring-connect", "udp", "127.0.0.2:9"))
        .denied(step!("ring-connect", "udp", "127.0.0.1:9"), connected())
        .denied(step!("ring-connect", "udp", "127.0.0.1:9", "worker"), connected())
        .run(scene, spec)
}
