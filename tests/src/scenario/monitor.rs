//! The monitor itself: no policy lets an agent touch it; and what no policy gives without naming it.

use anyhow::Context;
use serde_json::{Value, json};

use super::socket_connect::internet;
use crate::harness::policy::{self, ALL as EVERYTHING};
use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, builtin, control, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    no_policy_lets_an_agent_touch_the_monitors_files,
    no_policy_lets_an_agent_touch_logs_that_were_rotated,
    no_policy_lets_an_agent_reach_the_monitors_socket,
    the_monitors_socket_is_known_under_whatever_name,
    no_policy_lets_an_agent_signal_the_monitor,
    no_policy_lets_an_agent_change_the_bpf_file_system,
    no_policy_lets_an_agent_get_the_monitors_maps,
    the_monitor_is_not_touched_in_audit_mode_either,
    no_signal_about_a_file_reaches_the_monitor,
    metadata_addresses_are_denied_unless_named,
    audit_mode_lets_pass_and_records_but_builtins_still_deny,
    a_fault_passes_where_the_policy_says_so_and_is_recorded,
    a_second_daemon_refuses_and_names_the_first,
];

const LOG: &str = "/var/log/agent-monitor/audit.jsonl";
const POLICY: &str = "/etc/agent-monitor/policies/base.yaml";

fn no_policy_lets_an_agent_touch_the_monitors_files(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind(EVERYTHING)?;
    let own =
        |operation: &str, access: &[&str], path: &str| builtin(operation, access, json!({"path": path}), "monitor");
    let (socket, config) = (control::SOCKET, "/etc/agent-monitor/config.toml");
    let new = "/etc/agent-monitor/policies/new.yaml";
    let before = std::fs::read(POLICY)?;
    let steps = [
        (step!("open", LOG, "w"), own("file_open", &["write"], LOG)),
        (step!("unlink", LOG), own("path_unlink", &["delete"], LOG)),
        (step!("truncate", LOG, "0"), own("path_truncate", &["write"], LOG)),
        (step!("chmod", LOG, "511"), own("path_chmod", &["set-attributes"], LOG)),
        (step!("open", POLICY, "rw"), own("file_open", &["read", "write"], POLICY)),
        (step!("unlink", POLICY), own("path_unlink", &["delete"], POLICY)),
        (step!("open", new, "w,creat"), own("path_mknod", &["create"], new)),
        (step!("open", config, "w,creat"), own("path_mknod", &["create"], config)),
        (step!("unlink", socket), own("path_unlink", &["delete"], socket)),
    ];
    for (step, expected) in steps {
        scene.start = scene.records.lines.len();
        scene.denied(&mut process, &step, EACCES, &expected)?;
    }
    // Nor by moving what they lie in.
    for (from, to) in
        [("/var/log/agent-monitor", "/var/log/x"), ("/etc/agent-monitor", "/etc/x"), ("/run/agent-monitor", "/run/x")]
    {
        process.expect(&step!("rename", from, to), EACCES, "bound")?;
        scene.record(&json!({"operation": "path_rename", "object": {"path": from}, "verdict": "deny"}))?;
    }
    anyhow::ensure!(std::fs::read(POLICY)? == before && std::fs::metadata(LOG)?.len() > 0, "something was changed");
    Ok(())
}

/// They have the log's name with more after it: a number, a date, an ending.
fn no_policy_lets_an_agent_touch_logs_that_were_rotated(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind(EVERYTHING)?;
    let own =
        |operation: &str, access: &[&str], path: &str| builtin(operation, access, json!({"path": path}), "monitor");
    let rotated = ["/var/log/agent-monitor/audit.jsonl.1", "/var/log/agent-monitor/audit.jsonl-20260101.gz"];
    let (new, below) = ("/var/log/agent-monitor/audit.jsonl.2", "/var/log/agent-monitor/audit.jsonl.d");
    for path in rotated {
        std::fs::write(path, "{}\n")?;
        for (step, expected) in [
            (step!("open", path, "w"), own("file_open", &["write"], path)),
            (step!("unlink", path), own("path_unlink", &["delete"], path)),
            (step!("truncate", path, "0"), own("path_truncate", &["write"], path)),
        ] {
            scene.denied(&mut process, &step, EACCES, &expected)?;
        }
        anyhow::ensure!(std::fs::read(path)? == b"{}\n", "{path} was changed");
        std::fs::remove_file(path)?;
    }
    // Nor made, so that the next rotation would take it for one of its own.
    scene.denied(&mut process, &step!("open", new, "w,creat"), EACCES, &own("path_mknod", &["create"], new))?;
    scene.denied(&mut process, &step!("mkdir", below), EACCES, &own("path_mkdir", &["create"], below))?;
    let other = "/var/log/agent-monitor/other.jsonl";
    process.works(&step!("open", other, "w,creat"), "beside the log")?;
    scene.unbind_after(8)?;
    Ok(std::fs::remove_file(other)?)
}

fn no_policy_lets_an_agent_reach_the_monitors_socket(scene: &mut Scene<'_>) -> Outcome {
    let object = json!({"family": "unix", "unix": control::SOCKET});
    Cycle::new()
        .denied(step!("unix-connect", control::SOCKET), builtin("unix_stream_connect", &["connect"], object, "monitor"))
        .run(scene, EVERYTHING)
}

fn no_policy_lets_an_agent_signal_the_monitor(scene: &mut Scene<'_>) -> Outcome {
    let pid = scene.daemon.pid();
    let object = json!({"name": "signal-any", "target": pid});
    let mut process = scene.process()?;
    process.works(&step!("kill", pid.to_string(), "0"), "before binding")?;
    scene.bind(EVERYTHING)?;
    for signal in ["0", "15", "9", "19"] {
        scene.start = scene.records.lines.len();
        let expected = builtin("task_kill", &[], object.clone(), "monitor");
        scene.denied(&mut process, &step!("kill", pid.to_string(), signal), EACCES, &expected)?;
    }
    scene.unbind_after(4)?;
    anyhow::ensure!(control::metrics("/healthz")?.0 == 200, "the daemon does not answer");
    Ok(())
}

fn no_policy_lets_an_agent_change_the_bpf_file_system(scene: &mut Scene<'_>) -> Outcome {
    let name = "/sys/fs/bpf/scenario";
    let expected = builtin("path_mkdir", &["create"], json!({"path": name}), "monitor");
    // A lock on it would keep the next daemon from starting.
    let pins = "/sys/fs/bpf/agent-monitor";
    Cycle::new()
        .denied_after(move || drop(std::fs::remove_dir(name)), step!("mkdir", name), expected)
        .denied(step!("open", pins, "r,dir"), builtin("file_open", &["read"], json!({"path": pins}), "monitor"))
        .run(scene, EVERYTHING)?;
    Ok(std::fs::remove_dir(name)?)
}

fn no_policy_lets_an_agent_get_the_monitors_maps(scene: &mut Scene<'_>) -> Outcome {
    let builds: Vec<_> = std::fs::read_dir("/sys/fs/bpf/agent-monitor")?.flatten().collect();
    let pin = builds.iter().map(|build| build.path().join("maps/BINDINGS")).find(|pin| pin.exists());
    let pin = pin.context("the daemon's maps are not pinned")?;
    let expected = || builtin("bpf", &[], json!({"name": "bpf"}), "monitor");
    Cycle::new()
        .denied(step!("bpf-first", "map"), expected())
        .denied(step!("bpf-first", "program"), expected())
        .denied(step!("bpf-first", "link"), expected())
        .denied(step!("bpf-pin", pin), expected())
        // Maps of its own are the agent's.
        .allowed(step!("bpf"))
        .run(scene, EVERYTHING)
}

fn the_monitor_is_not_touched_in_audit_mode_either(scene: &mut Scene<'_>) -> Outcome {
    let pid = scene.daemon.pid();
    let policies = policy::DIRECTORY;
    let over = json!({"name": "resources-any", "target": pid});
    let bpf = || builtin("bpf", &[], json!({"name": "bpf"}), "monitor");
    let own = |hook: &str| builtin(hook, &["write"], json!({"path": policies}), "monitor");
    let pins = || builtin("sb_umount", &[], json!({"name": "mount"}), "monitor");
    let moved = || builtin("move_mount", &[], json!({"name": "mount"}), "monitor");
    let other_names = |hook: &str, name: &str| builtin(hook, &[], json!({"name": name}), "monitor");
    let mut steps = vec![
        (step!("mount", policies), own("sb_mount")),
        (step!("bind-mount", scene.workspace, policies), own("sb_mount")),
        (step!("unmount", "/sys/fs/bpf"), pins()),
        (step!("unmount", "/sys"), pins()),
        (
            step!("move-mount", "/sys/fs/bpf", scene.workspace),
            builtin("sb_mount", &[], json!({"name": "mount"}), "monitor"),
        ),
        (step!("move-mount-new", "/sys/fs/bpf", scene.workspace), moved()),
        (step!("move-mount-new", "/sys", scene.workspace), moved()),
        (step!("bpf-first", "map"), bpf()),
        (step!("bpf-first", "program"), bpf()),
    ];
    for (name, hook) in [("limit", "task_setrlimit"), ("priority", "task_setnice"), ("scheduler", "task_setscheduler")]
    {
        steps.push((step!(name, pid.to_string()), builtin(hook, &[], over.clone(), "monitor")));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    // What gives its files other names passes with a rule alone.
    let in_audit = [
        (step!("chroot", scene.workspace), EACCES, other_names("path_chroot", "chroot")),
        (step!("bind-mount", "/var", scene.workspace), EACCES, other_names("sb_mount", "mount")),
        (step!("clone-mount", "/var"), libc::EPERM, other_names("capable", "mount")),
        (step!("pick-mount", "/sys/fs/bpf"), libc::EPERM, other_names("capable", "mount")),
        (step!("mount-attributes", "/sys/fs/bpf"), libc::EPERM, other_names("capable", "mount")),
    ];
    let mut process = scene.process()?;
    for (spec, mode) in [(EVERYTHING, "enforce"), ("{}", "audit")] {
        scene.bind_as("scenario", spec, json!({"mode": mode}))?;
        for (step, expected) in &steps {
            scene.start = scene.records.lines.len();
            scene.denied(&mut process, step, EACCES, expected)?;
        }
        for (step, errno, expected) in in_audit.iter().filter(|_| mode == "audit") {
            scene.denied(&mut process, step, *errno, expected)?;
        }
        scene.unbind()?;
    }
    anyhow::ensure!(std::fs::read_to_string("/proc/self/mounts")? == mounts, "something was mounted or unmounted");
    Ok(())
}

/// Not even where the socket has another name, because the agent may change its root.
fn the_monitors_socket_is_known_under_whatever_name(scene: &mut Scene<'_>) -> Outcome {
    let socket = control::SOCKET.strip_prefix("/run").context("the socket is below /run")?;
    let connect = step!("unix-connect-in", "/run", socket);
    let mut outsider = Process::start()?;
    outsider.works(&connect, "as an outsider")?;
    let mut process = scene.process()?;
    scene.bind(EVERYTHING)?;
    let expected = builtin("unix_stream_connect", &["connect"], json!({"unix": socket}), "monitor");
    scene.denied(&mut process, &connect, EACCES, &expected)?;
    scene.unbind_after(1)?;
    process.works(&connect, "after unbinding").map(drop)
}

/// Naming the monitor as the receiver is a question of the privilege; what is sent then does not arrive.
fn no_signal_about_a_file_reaches_the_monitor(scene: &mut Scene<'_>) -> Outcome {
    let denials = || control::metric("agent_monitor_denied_total", &["class=\"privilege\"", "reason=\"builtin\""]);
    let (pid, mut target) = (scene.daemon.pid(), Process::start()?);
    let mut process = scene.process()?;
    scene.bind(EVERYTHING)?;
    let before = denials()?;
    process.works(&step!("signal-by-file", pid.to_string(), "9"), "bound")?;
    anyhow::ensure!(denials()? > before, "{before} denials became {}", denials()?);
    anyhow::ensure!(scene.daemon.runs()?, "the daemon was killed");
    // It is what kills others.
    process.works(&step!("signal-by-file", target.pid().to_string(), "9"), "bound")?;
    anyhow::ensure!(target.run(&step!("nothing")).is_err(), "no signal was sent to another process either");
    Ok(())
}

fn metadata_addresses_are_denied_unless_named(scene: &mut Scene<'_>) -> Outcome {
    // No route is needed: without a denial the kernel says that there is none.
    let mut outsider = Process::start()?;
    let denied = |hook: &str, access: &str, protocol: &str, address: &str| {
        record(hook, &[access], internet(protocol, address, 80), "no_rule", None)
    };
    let (four, six) = ("169.254.169.254:80", "[fd00:ec2::254]:80");
    let mut cycle = Cycle::new();
    for (step, expected) in [
        (step!("connect", "tcp", four), denied("socket_connect", "connect", "tcp", "169.254.169.254")),
        (
            step!("connect", "udp", "[::ffff:169.254.169.254]:80"),
            denied("socket_connect", "connect", "udp", "169.254.169.254"),
        ),
        (step!("connect", "tcp", six), denied("socket_connect", "connect", "tcp", "fd00:ec2::254")),
        (step!("sendto", "udp", four), denied("socket_sendmsg", "send", "udp", "169.254.169.254")),
        (step!("send-fast-open", "tcp", four), denied("socket_sendmsg", "connect", "tcp", "169.254.169.254")),
    ] {
        let (errno, _) = outsider.run(&step)?;
        anyhow::ensure!(errno == libc::ENETUNREACH, "{step:?} gave errno {errno} to an outsider");
        cycle = cycle.denied(step, expected).otherwise(errno);
    }
    cycle.allowed(step!("connect", "udp", "169.254.169.253:80")).otherwise(libc::ENETUNREACH).run(scene, EVERYTHING)?;
    let named = "network:\n  - {allow: [create], sockets: [inet]}\n  - {allow: [connect], to: {addresses: [\"169.254.169.254\"]}}\n";
    Cycle::new().allowed(step!("connect", "tcp", four)).otherwise(libc::ENETUNREACH).run(scene, named)
}

fn audit_mode_lets_pass_and_records_but_builtins_still_deny(scene: &mut Scene<'_>) -> Outcome {
    let (file, procs) = (scene.file("file", "f"), "/sys/fs/cgroup/scenarios/cgroup.procs");
    let mut process = scene.process()?;
    scene.bind_as("scenario", "files:\n  - {allow: [read], paths: [\"/none\"]}\n", json!({"mode": "audit"}))?;
    process.works(&step!("open", file, "w"), "in audit mode")?;
    let passed = json!({"operation": "file_open", "access": ["write"], "object": {"path": file}, "verdict": "audit",
        "reason": "no_rule", "errno": Value::Null, "mode": "audit"});
    scene.record(&passed)?;
    process.expect(&step!("open", procs, "w"), EACCES, "in audit mode")?;
    let mut expected = builtin("file_open", &["write"], json!({"path": procs}), "cgroup-write");
    expected["mode"] = json!("audit");
    scene.record(&expected)?;
    let counts = scene.unbind()?;
    anyhow::ensure!(counts["denied"] == 1 && counts["audited"] == 1, "counted are {counts}");
    Ok(())
}

fn a_fault_passes_where_the_policy_says_so_and_is_recorded(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind("onFault: allow\nnetwork:\n  - {allow: [create], sockets: [inet]}\n")?;
    // The kernel itself refuses the short address then.
    process.expect(&step!("sendto-short", "udp", "127.0.0.1:9"), libc::EINVAL, "bound")?;
    let expected = json!({"operation": "socket_sendmsg", "verdict": "allow", "reason": "fault:address-unreadable"});
    scene.record(&expected).map(drop)
}

fn a_second_daemon_refuses_and_names_the_first(scene: &mut Scene<'_>) -> Outcome {
    let second = std::process::Command::new("agent-monitor").arg("daemon").output()?;
    let text = String::from_utf8_lossy(&second.stderr);
    anyhow::ensure!(second.status.code() == Some(1), "the second daemon ended with {}", second.status);
    anyhow::ensure!(
        text.contains("error:") && text.contains(&format!("pid {}", scene.daemon.pid())),
        "it said: {text}"
    );
    let status = control::ask("GET", "/v1/status", &Value::Null)?;
    anyhow::ensure!(status["ready"] == true && status["pid"] == scene.daemon.pid(), "the first is not ready: {status}");
    Ok(())
}
