//! The powers of the kernel, each by its privilege: with every capability, but without the privilege, it is denied.

use std::os::unix::fs::FileTypeExt;

use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::process::Step;
use crate::harness::{Cycle, EACCES, EPERM, Outcome, Process, Scenario, Scene, builtin, privilege, skip};
use crate::{scenarios, step};
use serde_json::json;

pub const ALL: &[Scenario] = scenarios![Node:
    each_power_of_the_kernel_needs_its_privilege,
    a_key_of_the_user_is_used_only_with_the_privilege,
    no_session_keyring_is_put_in_the_place_of_another,
    a_user_namespace_needs_its_privilege,
    a_ring_its_thread_and_its_commands_need_a_privilege_each,
    a_module_that_the_kernel_asks_for_needs_the_privilege,
    a_process_is_traced_by_its_parent_only_with_the_privilege,
    a_rule_that_denies_a_privilege_wins,
];

/// Proves that each step needs the privilege with this name, and nothing else: the errno where it is denied, and (where
/// it is not 0) what an outsider gets.
pub fn each_needs(scene: &mut Scene<'_>, steps: Vec<(Step, &str, i32)>) -> Outcome {
    let mut outsider = Process::start()?;
    let mut steps_and_errnos = Vec::new();
    for (step, name, denied) in steps {
        let (errno, _) = outsider.run(&step)?;
        if errno == libc::ENOSYS {
            println!("(this kernel has no {})", crate::harness::process::shown(&step));
            continue;
        }
        anyhow::ensure!(errno != denied, "{step:?} is refused to an outsider too");
        steps_and_errnos.push((step, name, denied, errno));
    }
    let base = EVERYTHING.split_once("privileges:").map_or(EVERYTHING, |(base, _)| base);
    let capabilities = EVERYTHING.split_once("capabilities:").map_or("", |(_, capabilities)| capabilities);
    let mut cycle = Cycle::new();
    for (step, name, denied, errno) in &steps_and_errnos {
        cycle = cycle.prepared(|| (), step.clone(), *denied, vec![privilege(name)]).otherwise(*errno);
    }
    cycle.run(scene, &format!("{base}capabilities:{capabilities}"))?;
    let mut cycle = Cycle::new();
    for (step, _, _, errno) in steps_and_errnos {
        cycle = cycle.allowed(step).otherwise(errno);
    }
    cycle.run(scene, EVERYTHING)
}

fn each_power_of_the_kernel_needs_its_privilege(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "no module, no kernel");
    each_needs(
        scene,
        vec![
            (step!("bpf"), "bpf", EACCES),
            (step!("bpf-next-program"), "bpf", EACCES),
            (step!("perf-event"), "perf-events", EACCES),
            (step!("init-module-bytes"), "kernel-module", EACCES),
            (step!("finit-module", file), "kernel-module", EACCES),
            (step!("set-tcp-key"), "kernel-module", EACCES),
            (step!("kexec-load"), "kexec", EACCES),
            (step!("kexec-file", file), "kexec", EACCES),
            (step!("reboot"), "reboot", EPERM),
            (step!("settime"), "set-time", EPERM),
            (step!("settimeofday"), "set-time", EPERM),
            (step!("adjtimex"), "set-time", EPERM),
            (step!("kernel-log"), "syslog", EACCES),
            (step!("add-key"), "keyring", EACCES),
            (step!("request-key"), "keyring", EACCES),
            (step!("swapon"), "swap", EPERM),
            (step!("swapoff"), "swap", EPERM),
            (step!("quota"), "quota", EACCES),
            (step!("iopl"), "raw-io", EPERM),
            (step!("ioperm"), "raw-io", EPERM),
            (step!("userfaultfd"), "userfaultfd", EACCES),
            (step!("secret-memory"), "secretmem", EACCES),
        ],
    )
}

fn a_key_of_the_user_is_used_only_with_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let key = Process::start()?.works(&step!("make-key"), "as an outsider")?.to_string();
    // What is denied the kernel looks for in other keyrings, too.
    Cycle::new().denied(step!("describe-key", key), privilege("keyring")).uncounted().run(scene, "{}")?;
    let allowed = "privileges:\n  - {allow: [keyring]}\n";
    Cycle::new().allowed(step!("describe-key", key)).run(scene, allowed)
}

fn no_session_keyring_is_put_in_the_place_of_another(scene: &mut Scene<'_>) -> Outcome {
    let denied = builtin("key_permission", &[], json!({"name": "keyring"}), "other-agent");
    let spec = "privileges:\n  - {allow: [keyring]}\n";
    Cycle::new().denied(step!("give-session-keyring"), denied).run(scene, spec)
}

fn a_user_namespace_needs_its_privilege(scene: &mut Scene<'_>) -> Outcome {
    each_needs(
        scene,
        vec![(step!("unshare", "user"), "user-namespace", EACCES), (step!("clone-user"), "user-namespace", EACCES)],
    )
}

fn a_ring_its_thread_and_its_commands_need_a_privilege_each(scene: &mut Scene<'_>) -> Outcome {
    if Process::start()?.run(&step!("ring"))?.0 == libc::ENOSYS {
        return Err(skip("this kernel has no io_uring"));
    }
    let base =
        "files:\n  - {allow: [all], paths: [\"/**\", \"anon:other\"]}\ncapabilities:\n  - {allow: [CAP_IPC_LOCK]}\n";
    let with = |names: &str| format!("{base}privileges:\n  - {{allow: [{names}]}}\n");
    let command = || step!("ring-command", "/dev/null");
    Cycle::new()
        .denied(step!("ring"), privilege("io-uring"))
        .denied(command(), privilege("io-uring"))
        .run(scene, &with("io-uring-sqpoll, io-uring-command"))?;
    Cycle::new()
        .allowed(step!("ring"))
        .denied(step!("ring-thread"), privilege("io-uring-sqpoll"))
        .denied(command(), privilege("io-uring-command"))
        .run(scene, &with("io-uring"))?;
    Cycle::new()
        .allowed(step!("ring-thread"))
        .allowed(command())
        .run(scene, &with("io-uring, io-uring-sqpoll, io-uring-command"))
}

/// The kernel asks for the driver of a device that it does not know. The program gets the same errno either way: what is
/// denied is that a program of root's runs outside of the agent.
fn a_module_that_the_kernel_asks_for_needs_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let device = scene.path("device");
    let name = std::ffi::CString::new(device.to_string_lossy().as_bytes())?;
    // Experimental use (`Documentation/admin-guide/devices.txt`): nobody's.
    let number = libc::makedev(240, 7);
    // SAFETY: the path ends with NUL.
    let made = unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, number) };
    anyhow::ensure!(made == 0 && std::fs::metadata(&device)?.file_type().is_char_device(), "make a device");
    let files = "files:\n  - {allow: [all], paths: [\"/**\"]}\n";
    let asked = privilege("kernel-module");
    Cycle::new()
        .prepared(|| (), step!("open", device, "r"), libc::ENXIO, vec![asked])
        .otherwise(libc::ENXIO)
        .run(scene, files)?;
    Cycle::new()
        .allowed(step!("open", device, "r"))
        .otherwise(libc::ENXIO)
        .run(scene, &format!("{files}privileges:\n  - {{allow: [kernel-module]}}\n"))
}

fn a_process_is_traced_by_its_parent_only_with_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    Cycle::new().denied(step!("trace-me", "child"), privilege("ptrace-same-agent")).run(scene, "{}")?;
    let allowed = "privileges:\n  - {allow: [ptrace-same-agent]}\n";
    Cycle::new().allowed(step!("trace-me", "child")).run(scene, allowed)?;
    // Its parent is no agent's.
    let mut process = scene.process()?;
    scene.bind(allowed)?;
    let target = json!({"name": "ptrace-same-agent", "target": std::process::id()});
    scene.start = scene.records.lines.len();
    scene.denied(&mut process, &step!("trace-me"), EACCES, &builtin("ptrace_traceme", &[], target, "other-agent"))?;
    scene.unbind_after(1)
}

/// A rule that denies wins over one that allows, for each word.
fn a_rule_that_denies_a_privilege_wins(scene: &mut Scene<'_>) -> Outcome {
    let (base, rest) = EVERYTHING.split_once("capabilities:").unwrap_or((EVERYTHING, ""));
    let spec = format!("{base}  - {{deny: [keyring, quota]}}\ncapabilities:{rest}");
    let denied = |name: &str| json!({"class": "privilege", "object": {"name": name}, "reason": "deny_rule", "policy": {"rule": "privileges[1]"}});
    Cycle::new()
        .denied(step!("quota"), denied("quota"))
        .denied(step!("add-key"), denied("keyring"))
        .allowed(step!("perf-event"))
        .run(scene, &spec)
}
