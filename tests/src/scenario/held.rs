//! Descriptors that were opened before the binding, or come from elsewhere.

use std::fs;
use std::net::{TcpListener, UdpSocket};

use serde_json::{Value, json};

use super::socket_connect::internet;
use crate::harness::control::is_attached;
use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, builtin, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_received_descriptor_needs_the_rights_that_it_has,
    a_descriptor_from_before_the_binding_truncates_nothing,
    what_was_opened_to_append_is_written_elsewhere_only_by_a_rule,
    the_other_end_of_a_pipe_is_not_opened,
    flags_of_a_file_are_set_only_by_a_rule,
    a_lease_needs_the_right_to_write,
    a_socket_connected_before_binding_sends_nothing_to_a_denied_address,
    an_accepted_connection_is_answered_where_listening_is_allowed,
];

fn a_received_descriptor_needs_the_rights_that_it_has(scene: &mut Scene<'_>) -> Outcome {
    let (secret, open) = (scene.file("secret", "s"), scene.file("open", "o"));
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let held = [
        ("read", &secret, "r"),
        ("write", &secret, "w"),
        ("both", &open, "rw"),
        ("one", &open, "r"),
        ("path", &secret, "path"),
    ];
    for process in [&mut process, &mut outsider] {
        for (name, path, flags) in held {
            process.works(&step!("hold", name, path, flags), "before binding")?;
            process.works(&step!("pass", name), "before binding")?;
        }
        process.works(&step!("socket-hold", "socket", "udp"), "before binding")?;
    }
    scene.bind(
        "files:\n  - {allow: [read], paths: [\"$W/open\"]}\nnetwork:\n  - {allow: [create], sockets: [unix]}\n",
    )?;
    let denied = |access: &[&str], path: Value| record("file_receive", access, json!({"path": path}), "no_rule", None);
    // What the other end of recvmsg(2) sees is a message without its descriptor.
    let none = libc::ENOMSG;
    scene.denied(&mut process, &step!("pass", "read"), none, &denied(&["read"], json!(secret)))?;
    scene.denied(&mut process, &step!("pass", "write"), none, &denied(&["write"], json!(secret)))?;
    scene.denied(&mut process, &step!("pass", "both"), none, &denied(&["read", "write"], json!(open)))?;
    scene.denied(&mut process, &step!("pass", "socket"), none, &denied(&["read", "write"], json!("anon:socket")))?;
    process.works(&step!("pass", "one"), "bound, with a right that a rule allows")?;
    process.works(&step!("pass", "path"), "bound: a path gives no right to what it names")?;
    for name in ["read", "write", "both", "socket"] {
        outsider.works(&step!("pass", name), "as an outsider")?;
    }
    scene.unbind_after(4)?;
    process.works(&step!("pass", "read"), "after unbinding").map(drop)
}

fn a_descriptor_from_before_the_binding_truncates_nothing(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "text");
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    for process in [&mut process, &mut outsider] {
        process.works(&step!("hold", "file", file, "w"), "before binding")?;
        process.works(&step!("ftruncate", "file", "4"), "before binding")?;
    }
    scene.bind("files:\n  - {allow: [read], paths: [\"$W/**\"]}\n")?;
    // Before 6.2 the hook on paths sees it.
    let hook = if is_attached("file_truncate")? { "file_truncate" } else { "path_truncate" };
    let denied = record(hook, &["write"], json!({"path": file}), "no_rule", None);
    scene.denied(&mut process, &step!("ftruncate", "file", "1"), EACCES, &denied)?;
    let denied = |hook: &str| record(hook, &["write"], json!({"path": file}), "no_rule", None);
    scene.denied(&mut process, &step!("punch-hole", "file", "4"), EACCES, &denied("file_permission"))?;
    // FS_IOC_UNRESVSP64, and BTRFS_IOC_DEFRAG; an outsider names no bytes, and has no file of btrfs.
    for (number, errno) in [(0x4030_582b_u32, libc::EINVAL), (0x5000_9402, libc::ENOTTY)] {
        let step = step!("control", file, number.to_string());
        outsider.expect(&step, errno, "as an outsider")?;
        scene.denied(&mut process, &step, EACCES, &denied("file_ioctl"))?;
        scene.start = scene.records.lines.len();
    }
    anyhow::ensure!(fs::read(&file)? == b"text", "the file was cut");
    outsider.works(&step!("ftruncate", "file", "4"), "as an outsider")?;
    outsider.works(&step!("punch-hole", "file", "1"), "as an outsider")?;
    scene.unbind_after(4)?;
    process.works(&step!("ftruncate", "file", "1"), "after unbinding")?;
    process.works(&step!("punch-hole", "file", "1"), "after unbinding").map(drop)
}

/// Standard output, into a log that others write, too.
fn what_was_opened_to_append_is_written_elsewhere_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (log, free) = (scene.file("log", "earlier\n"), scene.file("free", "f"));
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    for process in [&mut process, &mut outsider] {
        process.works(&step!("hold", "log", log, "w,append"), "before binding")?;
        process.works(&step!("hold", "free", free, "w,append"), "before binding")?;
    }
    scene.bind("files:\n  - {allow: [read], paths: [\"$W/*\"]}\n  - {allow: [write], paths: [\"$W/free\"]}\n")?;
    let denied = record("file_fcntl", &["write"], json!({"path": log}), "no_rule", None);
    scene.denied(&mut process, &step!("set-open-flags", "log"), EACCES, &denied)?;
    process.works(&step!("set-open-flags", "log", "append"), "bound, where it is left as it is")?;
    process.works(&step!("set-open-flags", "free"), "bound, and allowed")?;
    process.works(&step!("write", "log", "later"), "bound, as it was opened")?;
    anyhow::ensure!(fs::read(&log)? == b"earlier\nlater", "the log was overwritten");
    outsider.works(&step!("set-open-flags", "log"), "as an outsider")?;
    scene.unbind_after(1)?;
    process.works(&step!("set-open-flags", "log"), "after unbinding").map(drop)
}

/// Who was given one end would read what others write there, or write what others take for their own input.
fn the_other_end_of_a_pipe_is_not_opened(scene: &mut Scene<'_>) -> Outcome {
    let denied = |access: &[&str]| builtin("file_open", access, json!({"path": "anon:pipe"}), "other-end");
    let spec = "files:\n  - {allow: [read, write], paths: [\"anon:pipe\"]}\n";
    for (kept, closed, own, other) in [("out", "in", "r", "w"), ("in", "out", "w", "r")] {
        let other_access = if other == "w" { "write" } else { "read" };
        Cycle::new()
            .allowed(step!("pipe-hold", "out", "in"))
            .allowed(step!("reopen", kept, other))
            .allowed(step!("reopen", kept, "rw"))
            .allowed(step!("pipe-hold", "out", "in"))
            .allowed(step!("reopen", kept, own))
            .allowed(step!("close", closed))
            .denied(step!("reopen", kept, other), denied(&[other_access]))
            .denied(step!("reopen", kept, "rw"), denied(&["read", "write"]))
            .run(scene, spec)?;
    }
    Ok(())
}

fn flags_of_a_file_are_set_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (file, free) = (scene.file("file", "f"), scene.file("free", "f"));
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    for (name, path) in [("file", &file), ("free", &free)] {
        process.works(&step!("hold", name, path, "r"), "before binding")?;
        outsider.works(&step!("hold", name, path, "r"), "before binding")?;
    }
    // Not every file system has flags, and not every kernel the newer call: then that is what an outsider is told.
    let (by_ioctl, by_call) = (step!("setflags", "file"), step!("file-setattr", file));
    let others = [outsider.run(&by_ioctl)?.0, outsider.run(&by_call)?.0];
    anyhow::ensure!(others.iter().all(|errno| *errno != EACCES), "an outsider is refused, too: {others:?}");
    scene
        .bind("files:\n  - {allow: [read], paths: [\"/**\"]}\n  - {allow: [set-attributes], paths: [\"$W/free\"]}\n")?;
    let denied = |hook: &str| record(hook, &["set-attributes"], json!({"path": file}), "no_rule", None);
    scene.denied(&mut process, &by_ioctl, EACCES, &denied("file_ioctl"))?;
    // Seals a file for good that may be read only.
    scene.start = scene.records.lines.len();
    scene.denied(&mut process, &step!("verity", "file"), EACCES, &denied("file_ioctl"))?;
    // BCHFS_IOC_REINHERIT_ATTRS
    let inherit = step!("control", file, 0x8008_bc40_u32.to_string());
    for step in [step!("set-received", file), step!("set-layout", file), inherit] {
        outsider.expect(&step, libc::ENOTTY, "as an outsider")?;
        scene.start = scene.records.lines.len();
        scene.denied(&mut process, &step, EACCES, &denied("file_ioctl"))?;
    }
    process.expect(&step!("setflags", "free"), others[0], "bound, and allowed")?;
    let mut denials = 5;
    if is_attached("inode_file_setattr")? {
        scene.denied(&mut process, &by_call, EACCES, &denied("inode_file_setattr"))?;
        process.expect(&step!("file-setattr", free), others[1], "bound, and allowed")?;
        denials += 1;
    }
    outsider.expect(&by_ioctl, others[0], "as an outsider")?;
    scene.unbind_after(denials)?;
    process.expect(&by_ioctl, others[0], "after unbinding").map(drop)
}

/// A lease makes whoever opens the file wait.
fn a_lease_needs_the_right_to_write(scene: &mut Scene<'_>) -> Outcome {
    let (file, free) = (scene.file("file", "f"), scene.file("free", "f"));
    let denied = record("file_fcntl", &["write"], json!({"path": file}), "no_rule", None);
    // From 6.19 on; before, the kernel knows no such command.
    let mut outsider = Process::start()?;
    outsider.works(&step!("hold", "free", free, "r"), "as an outsider")?;
    let delegation = outsider.run(&step!("delegation", "free"))?.0;
    Cycle::new()
        .allowed(step!("hold", "file", file, "r"))
        .denied(step!("lease", "file"), denied.clone())
        .denied(step!("delegation", "file"), denied)
        .otherwise(delegation)
        .allowed(step!("hold", "free", free, "r"))
        .allowed(step!("delegation", "free"))
        .otherwise(delegation)
        .allowed(step!("lease", "free"))
        .run(scene, "files:\n  - {allow: [read], paths: [\"$W/*\"]}\n  - {allow: [write], paths: [\"$W/free\"]}\n")
}

fn a_socket_connected_before_binding_sends_nothing_to_a_denied_address(scene: &mut Scene<'_>) -> Outcome {
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let (four, six) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?);
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let peers =
        [("four", "tcp", four.local_addr()?), ("six", "tcp", six.local_addr()?), ("udp", "udp", udp.local_addr()?)];
    for process in [&mut process, &mut outsider] {
        for (name, protocol, at) in peers {
            let family = if at.is_ipv6() { "6" } else { "4" };
            process.works(&step!("socket-hold", name, protocol, family), "before binding")?;
            process.works(&step!("connect-held", name, at.to_string()), "before binding")?;
            process.works(&step!("send-held", name), "before binding")?;
        }
    }
    scene.bind("network:\n  - {allow: [create], sockets: [inet, inet6]}\n")?;
    for (name, protocol, at) in peers {
        let object = internet(protocol, &at.ip().to_string(), at.port());
        let denied = record("socket_sendmsg", &["connect"], object, "no_rule", None);
        for step in [step!("send-held", name), step!("write", name, "x")] {
            scene.start = scene.records.lines.len();
            scene.denied(&mut process, &step, EACCES, &denied)?;
        }
        outsider.works(&step!("send-held", name), "as an outsider")?;
    }
    scene.unbind_after(6)?;
    scene.bind("network:\n  - {allow: [connect], to: {addresses: [\"127.0.0.1\"]}}\n")?;
    process.works(&step!("send-held", "four"), "bound, and allowed")?;
    process.works(&step!("send-held", "udp"), "bound, and allowed")?;
    scene.unbind_after(0)?;
    process.works(&step!("send-held", "six"), "after unbinding").map(drop)
}

fn an_accepted_connection_is_answered_where_listening_is_allowed(scene: &mut Scene<'_>) -> Outcome {
    const PORT: u16 = 8199;
    let mut process = scene.process()?;
    let spec = |port: u16| {
        format!(
            "network:\n  - {{allow: [create], sockets: [inet]}}\n  - {{allow: [listen], at: {{addresses: [\"127.0.0.1\"], \
             ports: [{port}], protocols: [tcp]}}}}\n"
        )
    };
    scene.bind(&spec(PORT))?;
    process.works(&step!("listen-held", "listener", format!("127.0.0.1:{PORT}")), "bound, and allowed")?;
    let client = std::net::TcpStream::connect(("127.0.0.1", PORT))?;
    let own = client.local_addr()?;
    process.works(&step!("accept-held", "listener", "peer"), "bound")?;
    process.works(&step!("send-held", "peer"), "bound, and accepted where it may listen")?;
    scene.unbind_after(0)?;
    scene.bind(&spec(1))?;
    let denied = record("socket_sendmsg", &["connect"], internet("tcp", "127.0.0.1", own.port()), "no_rule", None);
    scene.denied(&mut process, &step!("send-held", "peer"), EACCES, &denied)?;
    scene.unbind_after(1)
}
