//! Limits and priorities of a process that is not the agent's.

use serde_json::json;

use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::{Cycle, EPERM, Outcome, Process, Scenario, Scene, builtin, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    limits_and_priorities_of_an_outsider_need_the_privilege,
    limits_and_priorities_within_the_agent_need_no_rule,
    memory_of_an_outsider_is_not_moved_whatever_the_policy,
];

/// The hooks and their steps.
const CHANGES: [(&str, &str); 5] = [
    ("limit", "task_setrlimit"),
    ("priority", "task_setnice"),
    ("io-priority", "task_setioprio"),
    ("scheduler", "task_setscheduler"),
    ("processors", "task_setscheduler"),
];

fn limits_and_priorities_of_an_outsider_need_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let target = Process::start()?;
    let pid = target.pid().to_string();
    let object = json!({"name": "resources-any", "target": target.pid()});
    let mut cycle = Cycle::new();
    for (name, hook) in CHANGES {
        cycle = cycle.denied(step!(name, pid), record(hook, &[], object.clone(), "no_rule", None));
    }
    cycle.run(scene, &EVERYTHING.replace("resources-any, ", ""))?;
    CHANGES.iter().fold(Cycle::new(), |cycle, (name, _)| cycle.allowed(step!(*name, pid))).run(scene, EVERYTHING)
}

fn limits_and_priorities_within_the_agent_need_no_rule(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    let child = process.works(&step!("spawn"), "before binding")?.to_string();
    scene.bind("{}")?;
    for (name, _) in CHANGES {
        process.works(&step!(name, child), "bound, on its child")?;
        process.works(&step!(name, "0"), "bound, on itself")?;
    }
    scene.unbind_after(0)
}

/// It is the right of tracing that the kernel asks for first.
fn memory_of_an_outsider_is_not_moved_whatever_the_policy(scene: &mut Scene<'_>) -> Outcome {
    let target = Process::start()?;
    let object = json!({"name": "ptrace-same-agent", "target": target.pid()});
    let denied = builtin("ptrace_access_check", &[], object, "other-agent");
    let step = step!("migrate", target.pid().to_string());
    if Process::start()?.run(&step)?.0 == libc::ENOSYS {
        return Err(crate::harness::skip("this kernel has no migrate_pages"));
    }
    Cycle::new().prepared(|| (), step, EPERM, vec![denied]).run(scene, EVERYTHING)
}
