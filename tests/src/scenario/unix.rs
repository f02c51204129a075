//! Unix sockets: `unix_stream_connect`, `unix_may_send`, and binding of paths and abstract names.

use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use serde_json::json;

use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_unix_stream_is_connected_only_by_a_rule,
    a_unix_datagram_is_sent_only_by_a_rule,
    a_unix_name_is_bound_only_by_a_rule,
    a_listener_from_before_the_binding_needs_the_right_to_listen,
];

fn object(name: &str) -> serde_json::Value {
    json!({"family": "unix", "unix": name})
}

fn a_unix_stream_is_connected_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (denied_path, allowed_path) = (scene.path("docker.sock"), scene.path("allowed.sock"));
    let _one = UnixListener::bind(&denied_path)?;
    let _two = UnixListener::bind(&allowed_path)?;
    let abstract_name =
        |name: &str| SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
    let (_three, _four) = (abstract_name("scenario-denied")?, abstract_name("scenario-allowed")?);
    let alias = scene.path("alias.sock");
    std::os::unix::fs::symlink(&denied_path, &alias)?;
    let spec = r#"
network:
  - {allow: [create], sockets: [unix]}
  - {allow: [connect], to: {unix: ["$W/allowed.sock", "$W/alias.sock", "@scenario-allowed"]}}
"#;
    let denied = |name: &str| record("unix_stream_connect", &["connect"], object(name), "no_rule", None);
    let text = denied_path.display().to_string();
    Cycle::new()
        .denied(step!("unix-connect", denied_path), denied(&text))
        // A symbolic link gains nothing: it is the peer's own path that counts.
        .denied(step!("unix-connect", alias), denied(&text))
        .denied(step!("unix-connect", "@scenario-denied"), denied("@scenario-denied"))
        .allowed(step!("unix-connect", allowed_path))
        .allowed(step!("unix-connect", "@scenario-allowed"))
        .allowed(step!("unix-pair", "stream"))
        .run(scene, spec)
}

fn a_unix_datagram_is_sent_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (denied_path, allowed_path) = (scene.path("log"), scene.path("allowed"));
    let _one = UnixDatagram::bind(&denied_path)?;
    let receiver = UnixDatagram::bind(&allowed_path)?;
    receiver.set_nonblocking(true)?;
    let _three = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name("scenario-log")?)?;
    let spec = r#"
network:
  - {allow: [create], sockets: [unix]}
  - {allow: [connect, send], to: {unix: ["$W/allowed"]}}
"#;
    let denied = |name: &str| record("unix_may_send", &["send"], object(name), "no_rule", None);
    let text = denied_path.display().to_string();
    Cycle::new()
        .denied(step!("unix-send", denied_path), denied(&text))
        .denied(step!("unix-connect-datagrams", denied_path), denied(&text))
        .denied(step!("unix-send", "@scenario-log"), denied("@scenario-log"))
        .allowed(step!("unix-send", allowed_path))
        .allowed(step!("unix-pair", "datagrams"))
        .run(scene, spec)
}

fn a_unix_name_is_bound_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let path = scene.path("socket");
    let gone = path.clone();
    let spec = r#"
network:
  - {allow: [create], sockets: [unix]}
  - {allow: [listen], at: {unix: ["@scenario-mine"]}}
"#;
    let name = "@scenario-shell";
    Cycle::new()
        .denied(step!("unix-bind", name), record("socket_bind", &["listen"], object(name), "no_rule", None))
        .denied(step!("unix-listen", name), record("socket_bind", &["listen"], object(name), "no_rule", None))
        .denied_after(
            move || drop(std::fs::remove_file(&gone)),
            step!("unix-bind", path),
            record("path_mknod", &["create"], json!({"path": path}), "no_rule", None),
        )
        .denied(step!("unix-bind-any"), record("socket_bind", &["listen"], object("@"), "no_rule", None))
        .allowed(step!("unix-listen", "@scenario-mine"))
        .run(scene, spec)?;
    Cycle::new()
        .allowed(step!("unix-bind-any"))
        .run(scene, "network:\n  - {allow: [create], sockets: [unix]}\n  - {allow: [listen], at: {unix: [\"@**\"]}}\n")
}

/// Whoever connects has no name, but the socket has that under which it listened.
fn a_listener_from_before_the_binding_needs_the_right_to_listen(scene: &mut Scene<'_>) -> Outcome {
    let path = scene.path("service.sock");
    let mut process = scene.process()?;
    process.works(&step!("unix-listener-hold", "listener", path), "before binding")?;
    let denied = record("socket_sendmsg", &["listen"], object(&path.display().to_string()), "no_rule", None);
    let answer = step!("send-held", "stream");
    let accept = |process: &mut Process| -> anyhow::Result<UnixStream> {
        let stream = UnixStream::connect(&path)?;
        process.works(&step!("accept-held", "listener", "stream"), "bound or not")?;
        Ok(stream)
    };
    let mut stream = accept(&mut process)?;
    process.works(&answer, "before binding")?;
    scene.bind("files:\n  - {allow: [read], paths: [\"/none\"]}\n")?;
    scene.denied(&mut process, &answer, EACCES, &denied)?;
    let mut other = accept(&mut process)?;
    scene.start = scene.records.lines.len();
    scene.denied(&mut process, &answer, EACCES, &denied)?;
    scene.unbind_after(2)?;
    scene.bind("network:\n  - {allow: [listen], at: {unix: [\"$W/service.sock\"]}}\n")?;
    process.works(&answer, "bound, by a rule")?;
    scene.unbind_after(0)?;
    // One byte each was sent, by what was allowed.
    drop(process);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    other.read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes == b"xx", "{bytes:?} were sent");
    Ok(())
}
