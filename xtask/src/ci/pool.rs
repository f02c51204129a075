//! The machines of all steps, a few at once: scenarios wait more than they work.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use super::Ended;
use crate::vm;
use crate::workspace::Workspace;

/// Machines at once: each has two processors of its own.
pub const AT_ONCE: usize = 2;

/// A machine, and the step that it belongs to.
pub type Job = (&'static str, vm::Options);

/// What came of a machine, and after how many seconds.
type Outcome = (&'static str, Result<()>, f32);

/// Runs the machines in this order, and adds what came of them to their steps.
pub fn run(workspace: &Workspace, mut jobs: Vec<Job>, steps: &mut [Ended]) {
    let is_only_one = jobs.len() == 1;
    for (name, options) in &mut jobs {
        options.title = Some((*name).to_owned());
        options.output = if is_only_one { vm::Output::Shown } else { vm::Output::Whole };
    }
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || std::iter::from_fn(next).map(|(name, options)| one(workspace, name, &options)).collect::<Vec<_>>();
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        started.into_iter().flat_map(|one| one.join().unwrap_or_else(|it| std::panic::resume_unwind(it))).collect()
    });
    for (name, result, seconds) in outcomes {
        for step in steps.iter_mut().filter(|step| step.name == name) {
            step.seconds += seconds;
            if let Err(error) = &result {
                step.result = Err(anyhow!("{error:#}"));
            }
        }
    }
}

fn one(workspace: &Workspace, name: &'static str, options: &vm::Options) -> Outcome {
    let start = Instant::now();
    let result = all_passed(workspace, options);
    if let Err(error) = &result {
        println!("{name}: {error:#}");
    }
    (name, result, start.elapsed().as_secs_f32())
}

fn all_passed(workspace: &Workspace, options: &vm::Options) -> Result<()> {
    let runs = vm::run_on_all(workspace, options)?;
    let failed: Vec<String> = runs
        .iter()
        .filter(|run| run.status != 0)
        .map(|run| format!("linux {} with status {}", run.release, run.status))
        .collect();
    ensure!(failed.is_empty(), "scenarios failed on {}", failed.join(", "));
    Ok(())
}
