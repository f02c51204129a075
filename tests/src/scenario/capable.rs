//! `capable`: the powers of root. Where a capability is denied the kernel itself says EPERM.

use crate::harness::{Cycle, EACCES, EPERM, Outcome, Process, Scenario, Scene, capability};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_denied_capability_gives_eperm_and_is_recorded,
    powers_of_root_need_their_capability,
    mounting_by_old_and_new_calls_needs_its_capability,
    a_filter_that_is_refused_for_want_of_a_capability_is_recorded,
];

const FILES: &str = "files:\n  - {allow: [all], paths: [\"/**\"]}\n";

fn a_denied_capability_gives_eperm_and_is_recorded(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!("{FILES}privileges:\n  - {{allow: [chroot]}}\ncapabilities:\n  - {{allow: [CAP_SYS_CHROOT]}}\n");
    Cycle::new()
        .allowed(step!("chroot", "/tmp"))
        .prepared(|| (), step!("sethostname"), EPERM, vec![capability("CAP_SYS_ADMIN")])
        .run(scene, &spec)?;
    Cycle::new()
        .prepared(|| (), step!("chroot", "/tmp"), EPERM, vec![capability("CAP_SYS_CHROOT")])
        .allowed(step!("sethostname"))
        .run(scene, &format!("{FILES}capabilities:\n  - {{allow: [CAP_SYS_ADMIN]}}\n"))
}

/// The kernel asks as if it only looked, and refuses.
fn a_filter_that_is_refused_for_want_of_a_capability_is_recorded(scene: &mut Scene<'_>) -> Outcome {
    let refused = |by: &str| (step!("filter", by), vec![capability("CAP_SYS_ADMIN")]);
    let [call, prctl] = ["seccomp", "prctl"].map(refused);
    Cycle::new().prepared(|| (), call.0, EACCES, call.1).prepared(|| (), prctl.0, EACCES, prctl.1).run(scene, FILES)
}

/// Proves steps of which an outsider gets whatever it gets, and the agent EPERM for want of a capability.
fn powers(scene: &mut Scene<'_>, steps: Vec<(crate::harness::process::Step, &str)>) -> Outcome {
    let mut outsider = Process::start()?;
    let mut cycle = Cycle::new().uncounted();
    for (step, name) in steps {
        let (errno, _) = outsider.run(&step)?;
        anyhow::ensure!(errno != EPERM, "{step:?} is refused to an outsider too");
        cycle = cycle.prepared(|| (), step, EPERM, vec![capability(name)]).otherwise(errno);
    }
    // The privileges are given, so that the capability is what is missing.
    cycle.run(
        scene,
        &format!("{FILES}privileges:\n  - {{allow: [mount, set-time, reboot, swap, kexec, raw-io, kernel-module]}}\n"),
    )
}

fn powers_of_root_need_their_capability(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    let steps = vec![
        (step!("unshare", "mount"), "CAP_SYS_ADMIN"),
        (step!("unshare", "net"), "CAP_SYS_ADMIN"),
        (step!("unshare", "uts"), "CAP_SYS_ADMIN"),
        (step!("unshare", "cgroup"), "CAP_SYS_ADMIN"),
        (step!("unshare", "ipc"), "CAP_SYS_ADMIN"),
        (step!("unshare", "pid"), "CAP_SYS_ADMIN"),
        (step!("unshare", "time"), "CAP_SYS_ADMIN"),
        (step!("settime"), "CAP_SYS_TIME"),
        (step!("reboot"), "CAP_SYS_BOOT"),
        (step!("swapon"), "CAP_SYS_ADMIN"),
        (step!("init-module"), "CAP_SYS_MODULE"),
        (step!("iopl"), "CAP_SYS_RAWIO"),
        (step!("kexec-load"), "CAP_SYS_BOOT"),
        (step!("open-by-handle", file), "CAP_DAC_READ_SEARCH"),
    ];
    powers(scene, steps)
}

fn mounting_by_old_and_new_calls_needs_its_capability(scene: &mut Scene<'_>) -> Outcome {
    let (one, two) = (scene.path("one"), scene.path("two"));
    std::fs::create_dir(&one)?;
    std::fs::create_dir(&two)?;
    let steps = vec![
        (step!("mount", one), "CAP_SYS_ADMIN"),
        (step!("mount-kind", "cgroup2", one), "CAP_SYS_ADMIN"),
        (step!("bind-mount", one, two), "CAP_SYS_ADMIN"),
        (step!("fsopen"), "CAP_SYS_ADMIN"),
        (step!("open-tree"), "CAP_SYS_ADMIN"),
        (step!("pivot-root"), "CAP_SYS_ADMIN"),
    ];
    powers(scene, steps)
}
