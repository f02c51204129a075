//! Other processes: `ptrace_access_check`, `task_kill`.

use serde_json::{Value, json};

use crate::harness::{EACCES, EPERM, Outcome, Process, Scenario, Scene, builtin, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    another_process_is_not_traced_or_read_whatever_the_policy,
    a_process_of_the_same_agent_is_traced_only_by_the_privilege,
    entries_of_other_processes_are_denied_by_path,
    a_signal_to_an_outsider_needs_its_privilege,
    a_signal_within_the_agent_needs_its_privilege,
    signals_about_a_file_that_is_an_outsiders_need_the_privilege,
    a_process_in_a_new_session_stays_the_agents,
];

const FILES: &str = "files:\n  - {allow: [all], paths: [\"/**\", \"anon:other\", \"anon:pipe\"]}\ncapabilities:\n  - {allow: [CAP_SYS_PTRACE, CAP_KILL]}\n";

/// Ways to look into a process, with the errno that the kernel makes of a denial.
fn looks(pid: u32) -> Vec<(crate::harness::process::Step, i32)> {
    let pid = pid.to_string();
    vec![
        (step!("attach", pid), EACCES),
        (step!("read-memory", pid), EPERM),
        (step!("take-descriptor", pid), EPERM),
        (step!("compare", pid), EPERM),
        (step!("open", format!("/proc/{pid}/mem"), "r"), EACCES),
        (step!("open", format!("/proc/{pid}/environ"), "r"), EACCES),
        (step!("open", format!("/proc/{pid}/maps"), "r"), EACCES),
        (step!("list", format!("/proc/{pid}/root"), "r,dir"), EACCES),
    ]
}

fn another_process_is_not_traced_or_read_whatever_the_policy(scene: &mut Scene<'_>) -> Outcome {
    let (target, mut outsider, mut process) = (Process::start()?, Process::start()?, scene.process()?);
    let spec = format!("{FILES}privileges:\n  - {{allow: [ptrace-same-agent, signal-any]}}\n");
    for (step, _) in looks(target.pid()) {
        process.works(&step, "before binding")?;
    }
    scene.bind(&spec)?;
    let expected = builtin("ptrace_access_check", &[], privilege("ptrace-same-agent", target.pid()), "other-agent");
    for (step, errno) in looks(target.pid()) {
        scene.start = scene.records.lines.len();
        scene.denied(&mut process, &step, errno, &expected)?;
        outsider.works(&step, "as an outsider")?;
    }
    scene.unbind()?;
    for (step, _) in looks(target.pid()) {
        process.works(&step, "after unbinding")?;
    }
    Ok(())
}

fn privilege(name: &str, target: u32) -> Value {
    json!({"name": name, "target": target})
}

fn a_process_of_the_same_agent_is_traced_only_by_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    let child = process.works(&step!("spawn"), "before binding")? as u32;
    scene.bind(FILES)?;
    for (step, errno) in looks(child) {
        scene.start = scene.records.lines.len();
        let expected = record("ptrace_access_check", &[], privilege("ptrace-same-agent", child), "no_rule", None);
        scene.denied(&mut process, &step, errno, &expected)?;
    }
    scene.unbind()?;
    scene.bind(&format!("{FILES}privileges:\n  - {{allow: [ptrace-same-agent]}}\n"))?;
    for (step, _) in looks(child) {
        process.works(&step, "bound, with the privilege")?;
    }
    Ok(())
}

fn entries_of_other_processes_are_denied_by_path(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    let own = process.pid();
    scene.bind("files:\n  - {allow: [read], paths: [\"/proc/self/**\", \"/proc/self\"]}\n")?;
    for pid in [1, std::process::id(), scene.daemon.pid()] {
        // No right of tracing is asked for these.
        for name in ["cmdline", "stat", "status"] {
            let path = format!("/proc/{pid}/{name}");
            let expected = record("file_open", &["read"], json!({"path": path}), "no_rule", None);
            scene.denied(&mut process, &step!("open", path, "r"), EACCES, &expected)?;
        }
    }
    for path in [format!("/proc/{own}/status"), "/proc/self/stat".to_owned(), "/proc/thread-self/comm".to_owned()] {
        process.works(&step!("open", path, "r"), "bound, its own entry")?;
    }
    scene.unbind_after(9)
}

fn a_signal_to_an_outsider_needs_its_privilege(scene: &mut Scene<'_>) -> Outcome {
    let (mut target, mut process) = (Process::start()?, scene.process()?);
    let pid = target.pid();
    let steps = [step!("kill", pid.to_string(), "0"), step!("kill-by-descriptor", pid.to_string(), "0")];
    for step in &steps {
        process.works(step, "before binding")?;
    }
    // From 6.9 on a descriptor of a process is a file without a name.
    let spec = "files:\n  - {allow: [all], paths: [\"anon:other\"]}\nprivileges:\n  - {allow: [signal-same-agent]}\n";
    scene.bind(spec)?;
    let expected = record("task_kill", &[], privilege("signal-any", pid), "no_rule", None);
    for step in &steps {
        scene.start = scene.records.lines.len();
        scene.denied(&mut process, step, EACCES, &expected)?;
    }
    scene.denied(&mut process, &step!("kill", pid.to_string(), "9"), EACCES, &expected)?;
    target.works(&step!("nothing"), "after a signal that was denied")?;
    process.works(&step!("kill-self", "0"), "bound, to itself")?;
    scene.unbind_after(3)?;
    scene.bind("privileges:\n  - {allow: [signal-any]}\n")?;
    process.works(&steps[0], "bound, with the privilege")?;
    scene.unbind_after(0)?;
    process.works(&steps[0], "after unbinding").map(drop)
}

fn a_signal_within_the_agent_needs_its_privilege(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    let child = process.works(&step!("spawn"), "before binding")? as u32;
    scene.bind("privileges:\n  - {allow: [signal-any]}\n")?;
    let expected = record("task_kill", &[], privilege("signal-same-agent", child), "no_rule", None);
    scene.denied(&mut process, &step!("kill", child.to_string(), "15"), EACCES, &expected)?;
    process.works(&step!("kill-self", "0"), "bound, to itself")?;
    scene.unbind_after(1)?;
    scene.bind("privileges:\n  - {allow: [signal-same-agent]}\n")?;
    process.works(&step!("kill", child.to_string(), "15"), "bound, with the privilege")?;
    let signal = process.works(&step!("reap", child.to_string()), "bound")?;
    anyhow::ensure!(signal == 15, "the child ended with signal {signal}");
    scene.unbind_after(0)
}

/// The outsider was named before the file came to the agent: the kernel asks for nobody's rights after that.
fn signals_about_a_file_that_is_an_outsiders_need_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let (mut target, mut process) = (Process::start()?, scene.process()?);
    for (name, owner) in [("theirs", target.pid()), ("own", process.pid()), ("nobodys", 0)] {
        process.works(&step!("hold-owned", name, owner.to_string()), "before binding")?;
    }
    let steps = |name: &str| {
        let steps = [("async", "file_fcntl"), ("async-ioctl", "file_ioctl"), ("set-signal", "file_fcntl")];
        steps.map(|(step, hook)| (step!(step, name), hook))
    };
    scene.bind(FILES)?;
    // A socket is no directory to watch, which the kernel says after it has asked.
    let watch = (step!("notify", "theirs"), "file_fcntl");
    for (step, hook) in steps("theirs").into_iter().chain([watch]) {
        scene.start = scene.records.lines.len();
        let expected = record(hook, &[], json!({"name": "signal-any"}), "no_rule", None);
        scene.denied(&mut process, &step, EACCES, &expected)?;
    }
    for (step, _) in steps("own").into_iter().chain(steps("nobodys")) {
        process.works(&step, "bound, about its own file")?;
    }
    scene.unbind_after(4)?;
    scene.bind("privileges:\n  - {allow: [signal-any]}\n")?;
    for (step, _) in steps("theirs") {
        process.works(&step, "bound, with the privilege")?;
    }
    scene.unbind_after(0)?;
    target.works(&step!("nothing"), "nobody sent it a signal").map(drop)
}

fn a_process_in_a_new_session_stays_the_agents(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind("privileges:\n  - {allow: [signal-same-agent]}\n")?;
    let grandchild = process.works(&step!("new-session"), "bound")?;
    // It may be signalled as one of the same agent, and the kernel lists it in the agent's cgroup.
    process.works(&step!("kill", grandchild.to_string(), "0"), "bound")?;
    let own = std::fs::read_to_string(format!("/proc/{grandchild}/cgroup"))?;
    anyhow::ensure!(own.trim().ends_with(&scene.cgroup.path), "the grandchild is in {own}");
    scene.unbind_after(0)
}
