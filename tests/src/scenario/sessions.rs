//! Terminals, sessions and process groups that the agent shares with others.

use serde_json::json;

use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, builtin, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    signals_of_a_device_go_to_no_outsider,
    a_group_of_another_session_is_not_joined_and_its_terminal_not_taken,
];

/// A terminal sends its signals to whoever is in its foreground, and the caller chooses which signal that is.
fn signals_of_a_device_go_to_no_outsider(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let spec = "files:\n  - {allow: [all], paths: [\"/**\"]}\n";
    let denied = |hook: &str| record(hook, &[], json!({"name": "signal-any"}), "no_rule", None);
    Cycle::new()
        .allowed(step!("hold", "terminal", "/dev/ptmx", "rw"))
        .denied(step!("async", "terminal"), denied("file_fcntl"))
        .denied(step!("async-ioctl", "terminal"), denied("file_ioctl"))
        .denied(step!("set-signal", "terminal"), denied("file_fcntl"))
        .allowed(step!("hold", "file", file, "rw"))
        .allowed(step!("async", "file"))
        .allowed(step!("set-signal", "file"))
        .run(scene, spec)?;
    Cycle::new()
        .allowed(step!("hold", "terminal", "/dev/ptmx", "rw"))
        .allowed(step!("async", "terminal"))
        .allowed(step!("async-ioctl", "terminal"))
        .allowed(step!("set-signal", "terminal"))
        .run(scene, &format!("{spec}privileges:\n  - {{allow: [signal-any]}}\n"))
}

fn a_group_of_another_session_is_not_joined_and_its_terminal_not_taken(scene: &mut Scene<'_>) -> Outcome {
    // SAFETY: takes nothing.
    let own = unsafe { libc::getpgrp() }.to_string();
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    for process in [&mut process, &mut outsider] {
        process.works(&step!("hold", "terminal", "/dev/ptmx", "rw"), "before binding")?;
        process.works(&step!("join-group", "0"), "before binding")?;
        process.works(&step!("join-group", own), "before binding")?;
        // It is no controlling terminal, which the kernel sees after us.
        process.expect(&step!("take-foreground", "terminal"), libc::ENOTTY, "before binding")?;
    }
    process.works(&step!("join-group", "0"), "before binding")?;
    scene.bind(EVERYTHING)?;
    let denied = |hook: &str| builtin(hook, &[], json!({}), "other-session");
    scene.denied(&mut process, &step!("join-group", own), EACCES, &denied("task_setpgid"))?;
    scene.denied(&mut process, &step!("take-foreground", "terminal"), EACCES, &denied("file_ioctl"))?;
    process.works(&step!("join-group", "0"), "bound, into its own")?;
    // A child whose number in its own namespace is that of the group in the caller's.
    scene.denied(&mut process, &step!("join-group-of-number", own), EACCES, &denied("task_setpgid"))?;
    outsider.works(&step!("join-group-of-number", own), "as an outsider")?;
    outsider.works(&step!("join-group", own), "as an outsider")?;
    // The kernel asks for one more capability, and goes on without it.
    scene.unbind_after(4)?;
    process.works(&step!("join-group", own), "after unbinding")?;
    // In a session of its own all is the agent's.
    let mut process = scene.process()?;
    scene.bind(EVERYTHING)?;
    process.works(&step!("hold", "terminal", "/dev/ptmx", "rw"), "bound")?;
    process.works(&step!("lead-session"), "bound")?;
    process.expect(&step!("take-foreground", "terminal"), libc::ENOTTY, "in a session of its own")?;
    scene.unbind_after(0)
}
