//! `task_alloc` and the cgroup file system: an agent does not leave.

use serde_json::json;

use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::{Cycle, EACCES, Outcome, Scenario, Scene, builtin};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_process_is_not_made_in_another_cgroup,
    a_process_is_not_made_the_child_of_somebody_outside,
    no_policy_lets_an_agent_write_to_cgroups,
];

/// A cgroup that is no agent's.
const OUTSIDE: &str = "/sys/fs/cgroup/scenarios";

fn a_process_is_not_made_in_another_cgroup(scene: &mut Scene<'_>) -> Outcome {
    let expected = || builtin("task_alloc", &[], json!({}), "leave-cgroup");
    Cycle::new()
        .denied(step!("clone-into", OUTSIDE), expected())
        // No hook sees this one opened.
        .denied(step!("clone-into", OUTSIDE, "path"), expected())
        .allowed(step!("hold", "outside", OUTSIDE, "path,dir"))
        .denied(step!("clone-into-held", "outside"), expected())
        .run(scene, EVERYTHING)
}

fn a_process_is_not_made_the_child_of_somebody_outside(scene: &mut Scene<'_>) -> Outcome {
    Cycle::new()
        .denied(step!("clone-sibling"), builtin("task_alloc", &[], json!({}), "other-agent"))
        .allowed(step!("clone-sibling-in-child"))
        .run(scene, EVERYTHING)
}

fn no_policy_lets_an_agent_write_to_cgroups(scene: &mut Scene<'_>) -> Outcome {
    let procs = format!("{OUTSIDE}/cgroup.procs");
    let own = format!("{}/cgroup.procs", scene.cgroup.directory().display());
    let child = scene.cgroup.directory().join("child");
    let made = child.clone();
    let opened = |path: &str, access: &[&str]| builtin("file_open", access, json!({"path": path}), "cgroup-write");
    let free = move || drop(std::fs::remove_dir(&made));
    Cycle::new()
        .denied(step!("open", procs, "w"), opened(&procs, &["write"]))
        .denied(step!("open", procs, "rw"), opened(&procs, &["read", "write"]))
        .denied(step!("open", own, "w"), opened(&own, &["write"]))
        .denied_after(
            free,
            step!("mkdir", child),
            builtin("path_mkdir", &["create"], json!({"path": child}), "cgroup-write"),
        )
        .allowed(step!("open", procs, "r"))
        .run(scene, EVERYTHING)?;
    // A descriptor that only names the file is judged when it is opened for writing.
    scene.bind(EVERYTHING)?;
    let mut process = scene.process()?;
    process.works(&step!("hold", "procs", procs, "path"), "bound")?;
    scene.start = scene.records.lines.len();
    scene.denied(&mut process, &step!("reopen", "procs", "w"), EACCES, &opened(&procs, &["write"]))
}
