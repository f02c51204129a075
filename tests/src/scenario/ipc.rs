//! System V memory, messages and semaphores: an agent's own need no rule, all others the privilege.

use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::{Cycle, EACCES, Outcome, Process, Scenario, Scene, privilege};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    system_v_objects_of_an_outsider_need_the_privilege,
    system_v_objects_of_the_agent_need_no_rule,
];

/// How each kind is made, used and removed.
const KINDS: [[&str; 3]; 3] = [
    ["memory-make", "memory-attach", "memory-remove"],
    ["queue-make", "queue-use", "queue-remove"],
    ["semaphore-make", "semaphore-use", "semaphore-remove"],
];

fn system_v_objects_of_an_outsider_need_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let mut owner = Process::start()?;
    for [make, usage, remove] in KINDS {
        let id = owner.works(&step!(make), "as an outsider")?.to_string();
        Cycle::new().denied(step!(usage, id), privilege("ipc-any")).run(scene, &EVERYTHING.replace(", ipc-any", ""))?;
        let mut process = scene.process()?;
        scene.bind(&EVERYTHING.replace(", ipc-any", ""))?;
        scene.start = scene.records.lines.len();
        scene.denied(&mut process, &step!(remove, id), EACCES, &privilege("ipc-any"))?;
        scene.unbind_after(1)?;
        Cycle::new().allowed(step!(usage, id)).run(scene, EVERYTHING)?;
        owner.works(&step!(remove, id), "as its owner")?;
    }
    // It asks about all objects, and names none.
    Cycle::new().allowed(step!("memory-limits")).run(scene, "{}")
}

fn system_v_objects_of_the_agent_need_no_rule(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    scene.bind("{}")?;
    for [make, usage, remove] in KINDS {
        let id = process.works(&step!(make), "bound")?.to_string();
        process.works(&step!(usage, id), "bound")?;
        process.works(&step!(remove, id), "bound")?;
    }
    scene.unbind_after(0)
}
