//! Sockets of all families, and files of cgroups, that were opened before the binding.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::socket_connect::internet;
use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::process::Step;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, builtin, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_unix_socket_connected_before_binding_sends_only_by_a_rule,
    a_socket_of_a_family_that_no_rule_names_is_not_used_either,
    what_arrives_from_a_denied_address_is_not_received,
    a_descriptor_of_cgroup_procs_from_before_the_binding_moves_nobody,
];

/// Nothing to read yet.
const EAGAIN: i32 = libc::EAGAIN;

/// Does each step in both processes, which must end so.
fn both(processes: [&mut Process; 2], steps: &[(Step, i32)], when: &str) -> Result<()> {
    for process in processes {
        for (step, errno) in steps {
            process.expect(step, *errno, when)?;
        }
    }
    Ok(())
}

/// Does steps that must be denied, each with its record, and unbinds.
fn denied(scene: &mut Scene<'_>, process: &mut Process, steps: &[(Step, Value)]) -> Result<()> {
    for (step, record) in steps {
        scene.start = scene.records.lines.len();
        scene.denied(process, step, EACCES, record)?;
    }
    scene.unbind_after(steps.len() as u64)
}

fn a_unix_socket_connected_before_binding_sends_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let path = scene.path("service.sock");
    let abstract_name = SocketAddr::from_abstract_name("scenario-service")?;
    let _listeners = (UnixListener::bind(&path)?, UnixListener::bind_addr(&abstract_name)?);
    let text = path.display().to_string();
    let ready = [
        (step!("unix-hold", "path", path), 0),
        (step!("unix-hold", "abstract", "@scenario-service"), 0),
        (step!("hold", "file", scene.file("file", "f"), "r"), 0),
        (step!("send-held", "path"), 0),
        (step!("send-held", "abstract"), 0),
        (step!("sendfile-held", "path", "file"), 0),
    ];
    both([&mut process, &mut outsider], &ready, "before binding")?;
    let of =
        |hook: &str, name: &str| record(hook, &["connect"], json!({"family": "unix", "unix": name}), "no_rule", None);
    scene.bind("network:\n  - {allow: [create], sockets: [unix]}\n")?;
    let steps = [
        (step!("send-held", "path"), of("socket_sendmsg", &text)),
        (step!("write", "path", "x"), of("socket_sendmsg", &text)),
        (step!("sendfile-held", "path", "file"), of("file_permission", &text)),
        (step!("splice-to-held", "path"), of("file_permission", &text)),
        (step!("send-held", "abstract"), of("socket_sendmsg", "@scenario-service")),
    ];
    denied(scene, &mut process, &steps)?;
    outsider.works(&step!("send-held", "path"), "as an outsider")?;
    // Either word lets it go on: `send` what it was given, `connect` what it may also connect itself.
    for word in ["connect", "send"] {
        scene.bind(&format!("network:\n  - {{allow: [{word}], to: {{unix: [\"{text}\"]}}}}\n"))?;
        process.works(&step!("send-held", "path"), "bound, and allowed")?;
        process.works(&step!("splice-to-held", "path"), "bound, and allowed")?;
        scene.unbind_after(0)?;
    }
    process.works(&step!("send-held", "abstract"), "after unbinding").map(drop)
}

/// Families without addresses are judged where a socket is made; this one was made by somebody else.
fn a_socket_of_a_family_that_no_rule_names_is_not_used_either(scene: &mut Scene<'_>) -> Outcome {
    const GENERIC: i32 = 16;
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let hold = |name: &str, family: i32, kind: i32, protocol: i32| {
        step!("family-hold", name, family.to_string(), kind.to_string(), protocol.to_string())
    };
    let ready = [
        (hold("packet", libc::AF_PACKET, libc::SOCK_RAW, 0), 0),
        (hold("netlink", libc::AF_NETLINK, libc::SOCK_RAW, GENERIC), 0),
        (step!("send-frame-held", "packet"), 0),
        (step!("recv-held", "packet"), EAGAIN),
        (step!("send-held", "netlink"), 0),
    ];
    both([&mut process, &mut outsider], &ready, "before binding")?;
    let of = |hook: &str, family: &str| record(hook, &["create"], json!({"family": family}), "no_rule", None);
    scene.bind("network:\n  - {allow: [create], sockets: [unix, inet]}\n")?;
    let steps = [
        (step!("send-frame-held", "packet"), of("socket_sendmsg", "packet")),
        (step!("recv-held", "packet"), of("socket_recvmsg", "packet")),
        (step!("read", "packet"), of("socket_recvmsg", "packet")),
        (step!("send-held", "netlink"), of("netlink_send", "netlink")),
    ];
    denied(scene, &mut process, &steps)?;
    outsider.works(&step!("send-frame-held", "packet"), "as an outsider")?;
    scene.bind("network:\n  - {allow: [create], sockets: [packet, netlink]}\n")?;
    process.works(&step!("send-frame-held", "packet"), "bound, and allowed")?;
    process.works(&step!("send-held", "netlink"), "bound, and allowed")?;
    scene.unbind_after(0)?;
    process.works(&step!("send-frame-held", "packet"), "after unbinding").map(drop)
}

fn what_arrives_from_a_denied_address_is_not_received(scene: &mut Scene<'_>) -> Outcome {
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let mut peers = Vec::new();
    for process in [&mut process, &mut outsider] {
        process.works(&step!("socket-hold", "peer", "tcp"), "before binding")?;
        process.works(&step!("connect-held", "peer", at.to_string()), "before binding")?;
        let mut peer = listener.accept()?.0;
        peer.write_all(b"told")?;
        peers.push(peer);
        process.works(&step!("recv-held", "peer"), "before binding")?;
    }
    scene.bind("network:\n  - {allow: [create], sockets: [inet]}\n")?;
    let of = |hook: &str| record(hook, &["connect"], internet("tcp", "127.0.0.1", at.port()), "no_rule", None);
    let steps = [
        (step!("recv-held", "peer"), of("socket_recvmsg")),
        (step!("read", "peer"), of("socket_recvmsg")),
        (step!("splice-from-held", "peer"), of("file_permission")),
        (step!("recv-by-option", "peer"), of("socket_getsockopt")),
    ];
    denied(scene, &mut process, &steps)?;
    outsider.works(&step!("splice-from-held", "peer"), "as an outsider")?;
    let received = outsider.works(&step!("recv-by-option", "peer"), "as an outsider")?;
    ensure!(received > 0, "nothing is received by the option");
    scene.bind("network:\n  - {allow: [connect], to: {addresses: [\"127.0.0.1\"]}}\n")?;
    process.works(&step!("recv-held", "peer"), "bound, and allowed")?;
    process.works(&step!("splice-from-held", "peer"), "bound, and allowed")?;
    scene.unbind_after(0)?;
    process.works(&step!("recv-held", "peer"), "after unbinding").map(drop)
}

fn a_descriptor_of_cgroup_procs_from_before_the_binding_moves_nobody(scene: &mut Scene<'_>) -> Outcome {
    const OUTSIDE: &str = "/sys/fs/cgroup/scenarios/cgroup.procs";
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let ready = [(step!("hold", "procs", OUTSIDE, "w"), 0)];
    both([&mut process, &mut outsider], &ready, "before binding")?;
    let place = |process: &Process| fs::read_to_string(format!("/proc/{}/cgroup", process.pid()));
    let before = place(&process)?;
    scene.bind(EVERYTHING)?;
    let expected = builtin("file_permission", &["write"], json!({"path": OUTSIDE}), "cgroup-write");
    denied(scene, &mut process, &[(step!("write", "procs", "0"), expected)])?;
    ensure!(place(&process)? == before, "the process has left its cgroup");
    // And what the descriptor is worth to who is no agent.
    outsider.works(&step!("write", "procs", "0"), "as an outsider")?;
    process.works(&step!("write", "procs", "0"), "after unbinding")?;
    ensure!(place(&process)? != before, "the process has not moved: the descriptor was no way out");
    Ok(())
}
