//! A kernel without `bpf` in `lsm=`: nothing is enforced in silence, and the network alone only where that is asked for.
//! Another boot: `cargo xtask vm --lsm landlock,yama -- /root/scenarios --group no-lsm`.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use serde_json::{Value, json};

use super::socket_connect::internet;
use crate::harness::daemon::Daemon;
use crate::harness::records::{LOG, Records};
use crate::harness::{Cycle, Outcome, Scenario, Scene, control};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![NoLsm:
    without_bpf_among_the_security_modules_run_and_daemon_refuse_with_3,
    doctor_says_what_is_not_enabled_and_how_to_enable_it,
    with_allow_partial_the_network_alone_is_enforced_and_said_so,
];

fn without_bpf_among_the_security_modules_run_and_daemon_refuse_with_3() -> Outcome {
    let made = "/tmp/scenario-no-lsm";
    let run: &[&str] = &["run", "--policy", "locked", "--", "/bin/busybox", "touch", made];
    for arguments in [run, &["daemon"]] {
        let output = Command::new("agent-monitor").args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(3), "{arguments:?} ended with {}: {text}", output.status);
        for word in ["error:", "lsm=", "bpf", "--allow-partial"] {
            ensure!(text.contains(word), "{arguments:?} does not say {word}: {text}");
        }
    }
    ensure!(!Path::new(made).exists(), "the command was executed");
    Ok(())
}

fn doctor_says_what_is_not_enabled_and_how_to_enable_it() -> Outcome {
    let output = Command::new("agent-monitor").args(["doctor", "-o", "json"]).output()?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.code() == Some(1) && found["enforcement"] == "partial", "{} {found}", output.status);
    let features = found["features"].as_array().cloned().unwrap_or_default();
    let lsm = features.iter().find(|one| one["state"] == "not-enabled");
    ensure!(lsm.is_some_and(|one| one["how"].to_string().contains("lsm=")), "no way is told: {found}");
    Ok(())
}

fn with_allow_partial_the_network_alone_is_enforced_and_said_so() -> Outcome {
    let mut daemon = Daemon::start(&["--allow-partial"])?;
    let mut records = Records::open(Path::new(LOG))?;
    let status = control::ask("GET", "/v1/status", &Value::Null)?;
    ensure!(status["enforcement"] == "partial", "it says {status}");
    ensure!(
        control::metric("agent_monitor_enforcement_state", &["state=\"partial\""])? == 1,
        "the metrics do not say so"
    );
    let denied = |hook: &str, access: &str, protocol: &str, address: &str| {
        json!({"operation": hook, "access": [access], "object": internet(protocol, address, 20099), "verdict": "deny",
            "errno": "EACCES", "enforcement": "partial", "policy": {"name": "scenario"}})
    };
    {
        let mut scene = Scene::new(0, &mut daemon, &mut records)?;
        let file = scene.file("file", "f");
        let listener = std::net::TcpListener::bind("127.0.0.3:20099")?;
        let six = std::net::TcpListener::bind("[::1]:20099")?;
        let spec = "network:\n  - {allow: [connect, send], to: {addresses: [\"127.0.0.2\"]}}\n";
        Cycle::new()
            .denied(step!("connect", "udp", "127.0.0.1:20099"), denied("connect4", "connect", "udp", "127.0.0.1"))
            .denied(step!("connect", "tcp", "127.0.0.3:20099"), denied("connect4", "connect", "tcp", "127.0.0.3"))
            .denied(
                step!("send-fast-open", "tcp", "127.0.0.3:20099"),
                denied("connect4", "connect", "tcp", "127.0.0.3"),
            )
            .denied(step!("connect-fast-open", "127.0.0.3:20099"), denied("connect4", "connect", "tcp", "127.0.0.3"))
            .denied(step!("connect", "tcp", "[::1]:20099"), denied("connect6", "connect", "tcp", "::1"))
            .denied(
                step!("connect", "udp", "[::ffff:127.0.0.1]:20099"),
                denied("connect4", "connect", "udp", "127.0.0.1"),
            )
            .denied(step!("sendto", "udp", "127.0.0.1:20099"), denied("sendmsg4", "send", "udp", "127.0.0.1"))
            .denied(step!("sendmsg", "udp", "[::1]:20099"), denied("sendmsg6", "send", "udp", "::1"))
            .denied(step!("bind", "tcp", "127.0.0.1:20099"), denied("bind4", "listen", "tcp", "127.0.0.1"))
            .denied(step!("bind", "udp", "[::1]:20099"), denied("bind6", "listen", "udp", "::1"))
            .allowed(step!("connect", "udp", "127.0.0.2:9"))
            .allowed(step!("sendto", "udp", "127.0.0.2:9"))
            // Not enforced here, which is what was accepted.
            .allowed(step!("open", file, "r"))
            .run(&mut scene, spec)?;
        drop((listener, six));
    }
    let ended = daemon.stop()?;
    ensure!(ended.success(), "the daemon ended with {ended}");
    crate::harness::daemon::uninstall().map(drop)
}
