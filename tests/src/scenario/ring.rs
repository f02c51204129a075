//! io_uring is no way round: its operations meet the same hooks, also where a thread of the kernel does them.

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use serde_json::{Value, json};

use super::socket_connect::internet;
use crate::harness::process::{Step, shown};
use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    io_uring_opens_and_connects_nothing_that_is_denied,
    io_uring_changes_no_name_and_no_attribute_that_is_denied,
    io_uring_reaches_no_denied_address_by_any_send_and_makes_no_denied_socket,
    operations_that_a_kernel_thread_submits_are_judged,
];

/// Who does an operation: the caller, a worker thread, the thread that submits (last word of the trigger's steps).
const CALLER_AND_WORKER: [&str; 2] = ["", "worker"];
const THREAD: &str = "thread";

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

fn io_uring_changes_no_name_and_no_attribute_that_is_denied(scene: &mut Scene<'_>) -> Outcome {
    for by in CALLER_AND_WORKER {
        names(scene, by)?;
    }
    Ok(())
}

fn io_uring_reaches_no_denied_address_by_any_send_and_makes_no_denied_socket(scene: &mut Scene<'_>) -> Outcome {
    for by in CALLER_AND_WORKER {
        network(scene, by)?;
    }
    Ok(())
}

/// The thread polls the ring: the agent makes no call at all for an operation once it runs.
fn operations_that_a_kernel_thread_submits_are_judged(scene: &mut Scene<'_>) -> Outcome {
    if Process::start()?.run(&step!("ring"))?.0 == libc::ENOSYS {
        return Err(skip("this kernel has no io_uring"));
    }
    let (secret, open) = (scene.file("secret", "s"), scene.file("open", "o"));
    let spec = format!("files:\n  - {{allow: [read], paths: [\"$W/open\"]}}\n{}", granted(THREAD));
    Cycle::new()
        .denied(
            step!("ring-open", secret, THREAD),
            record("file_open", &["read"], json!({"path": secret}), "no_rule", None),
        )
        .allowed(step!("ring-open", open, THREAD))
        .run(scene, &spec)?;
    names(scene, THREAD)?;
    network(scene, THREAD)
}

/// What the policy grants so that rings can be used at all.
fn granted(by: &str) -> String {
    let names = if by == THREAD { "io-uring, io-uring-sqpoll" } else { "io-uring" };
    format!("privileges:\n  - {{allow: [{names}]}}\ncapabilities:\n  - {{allow: [CAP_IPC_LOCK, CAP_SYS_ADMIN]}}\n")
}

/// The operations that the kernel has: those that an outsider does not get EINVAL for (or what else `absent` is).
fn known<T>(rows: Vec<(Step, T)>, absent: &[i32], prepare: impl Fn()) -> anyhow::Result<Vec<(Step, T)>> {
    let mut outsider = Process::start()?;
    let mut known = Vec::new();
    for (step, expected) in rows {
        prepare();
        match outsider.run(&step)?.0 {
            0 => known.push((step, expected)),
            libc::ENOSYS => return Err(skip("this kernel has no io_uring")),
            errno if absent.contains(&errno) => {
                println!("(this kernel does not know {}: errno {errno})", shown(&step));
            }
            errno => anyhow::bail!("an outsider got errno {errno} for {}", shown(&step)),
        }
    }
    Ok(known)
}

/// Names and attributes, changed by way of a ring.
fn names(scene: &mut Scene<'_>, by: &str) -> Outcome {
    let [old, new, free, moved] = ["old", "new", "free", "moved"].map(|name| scene.path(name));
    let paths = [old.clone(), new.clone(), free.clone(), moved.clone()];
    // `old` and `free` are there, `new` and `moved` are not.
    let prepare = || {
        let paths = paths.clone();
        move || {
            for path in &paths {
                let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            }
            for path in [&paths[0], &paths[2]] {
                fs::write(path, "text").expect("the workspace is a tmpfs with room");
            }
        }
    };
    let denied = |hook: &str, access: &[&str], object| record(hook, access, object, "deny_rule", Some("files[1]"));
    let both = |from: &PathBuf, to: &PathBuf| json!({"path": from, "new_path": to});
    let rows: Vec<(Step, Option<Value>)> = vec![
        (step!("ring-mkdir", new, by), Some(denied("path_mkdir", &["create"], json!({"path": new})))),
        (step!("ring-symlink", old, new, by), Some(denied("path_symlink", &["create"], json!({"path": new})))),
        (step!("ring-link", free, new, by), Some(denied("path_link", &["create", "link"], both(&free, &new)))),
        (step!("ring-unlink", old, by), Some(denied("path_unlink", &["delete"], json!({"path": old})))),
        (step!("ring-rename", old, moved, by), Some(denied("path_rename", &["rename"], both(&old, &moved)))),
        (step!("ring-setxattr", old, by), Some(denied("inode_setxattr", &["set-attributes"], json!({"path": old})))),
        (step!("ring-mkdir", moved, by), None),
        (step!("ring-symlink", old, moved, by), None),
        (step!("ring-link", free, moved, by), None),
        (step!("ring-unlink", free, by), None),
        (step!("ring-rename", free, moved, by), None),
        (step!("ring-setxattr", free, by), None),
    ];
    let rows = known(rows, &[libc::EINVAL], prepare())?;
    let spec = format!(
        r#"
files:
  - {{allow: [all], paths: ["/**"]}}
  - {{deny: [create, delete, rename, set-attributes], paths: ["$W/old", "$W/new"]}}
{}"#,
        granted(by)
    );
    prove(scene, &rows, &prepare, &spec)?;
    // And the state, looked at after each that is denied.
    scene.bind(&spec)?;
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    for (step, _) in rows.iter().filter(|(_, expected)| expected.is_some()) {
        prepare()();
        process.expect(step, EACCES, "bound")?;
        let there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        ensure!(!there(&new) && !there(&moved) && fs::read(&old)? == b"text", "{} did something", shown(step));
        outsider.expect(&step!("removexattr", old), libc::ENODATA, "the attribute was set")?;
    }
    scene.unbind().map(drop)
}

/// Sends and sockets by way of a ring.
fn network(scene: &mut Scene<'_>, by: &str) -> Outcome {
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0")?;
    receiver.set_nonblocking(true)?;
    let at = receiver.local_addr()?;
    let allowed = std::net::UdpSocket::bind(("127.0.0.2", at.port()))?;
    let (to, free) = (at.to_string(), allowed.local_addr()?.to_string());
    let sent = record("socket_sendmsg", &["send"], internet("udp", "127.0.0.1", at.port()), "no_rule", None);
    let made = record("socket_create", &["create"], json!({"family": "inet6"}), "no_rule", None);
    let rows = vec![
        (step!("ring-send", "udp", to, by), Some(sent.clone())),
        (step!("ring-sendmsg", "udp", to, by), Some(sent)),
        (step!("ring-socket", "10", "2", by), Some(made)),
        (step!("ring-send", "udp", free, by), None),
        (step!("ring-sendmsg", "udp", free, by), None),
        (step!("ring-socket", "2", "2", by), None),
    ];
    // A kernel whose SEND takes no address sends on a socket that has none.
    let rows = known(rows, &[libc::EINVAL, libc::EDESTADDRREQ], || ())?;
    let spec = format!(
        r#"
network:
  - {{allow: [create], sockets: [inet]}}
  - {{allow: [send], to: {{addresses: ["127.0.0.2"], protocols: [udp]}}}}
{}"#,
        granted(by)
    );
    prove(scene, &rows, &|| || (), &spec)?;
    // And nothing arrives.
    scene.bind(&spec)?;
    let mut process = scene.process()?;
    let received = || receiver.recv(&mut [0; 8]).is_ok();
    while received() {}
    for (step, _) in rows.iter().filter(|(_, expected)| expected.is_some()) {
        process.expect(step, EACCES, "bound")?;
        ensure!(!received(), "{} was received", shown(step));
    }
    scene.unbind().map(drop)
}

/// Goes through rows of steps, each with the record of its denial where it is denied.
fn prove<P: Fn() + 'static>(
    scene: &mut Scene<'_>,
    rows: &[(Step, Option<Value>)],
    prepare: &dyn Fn() -> P,
    spec: &str,
) -> Outcome {
    let mut cycle = Cycle::new();
    for (step, expected) in rows {
        cycle = match expected {
            Some(record) => cycle.denied_after(prepare(), step.clone(), record.clone()),
            None => cycle.allowed_after(prepare(), step.clone()),
        };
    }
    cycle.run(scene, spec)
}
