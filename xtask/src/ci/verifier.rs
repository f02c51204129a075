//! The step `verifier`: how many instructions each kernel's verifier goes through for each program, against the numbers in
//! the tree. A program that grows unseen is one that some kernel will refuse.

mod budget;

use anyhow::{Context, Result, bail, ensure};

use super::{Verdict, all_well};
use crate::kernel::{self, Spec};
use crate::support::Support;
use crate::vm;
use crate::workspace::Workspace;
use budget::{Budget, Measured};

/// The committed numbers.
const FILE: &str = "agent-monitor-ebpf/verifier.tsv";

/// Compares what the kernels say with the file.
pub fn check(workspace: &Workspace, kernels: &[Spec]) -> Result<Verdict> {
    let path = workspace.root.join(FILE);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("read {FILE}; `cargo xtask ci --bless-verifier` writes it"))?;
    let budget = Budget::parse(&text).with_context(|| format!("read {FILE}"))?;
    let found = measure(workspace, kernels)?;
    let (problems, notes) = budget.compare(&found);
    notes.iter().for_each(|note| println!("{note}"));
    all_well(problems, "the verifier's work has changed")
}

/// Writes what the kernels say into the file; lines of series that were not asked for stay, unless `is_whole`.
pub fn bless(workspace: &Workspace, kernels: &[Spec], is_whole: bool) -> Result<()> {
    let path = workspace.root.join(FILE);
    let mut budget = match std::fs::read_to_string(&path) {
        Ok(text) if !is_whole => Budget::parse(&text).with_context(|| format!("read {FILE}"))?,
        _ => Budget::default(),
    };
    budget.replace(&measure(workspace, kernels)?);
    std::fs::write(&path, budget.text()).with_context(|| format!("write {}", path.display()))?;
    println!("{FILE} is written; commit it with the change that made the programs larger or smaller, and say why");
    Ok(())
}

/// Boots each kernel and asks `doctor`, which loads every program.
fn measure(workspace: &Workspace, kernels: &[Spec]) -> Result<Vec<Measured>> {
    // `time` says on standard error how long loading takes.
    let mut options = vm::Options::of(kernels, Vec::new(), "time agent-monitor doctor -o json");
    options.output = vm::Output::Kept;
    options.jobs = super::pool::AT_ONCE;
    let mut found = Vec::new();
    for run in vm::run_on_all(workspace, &options)? {
        let support = Support::read(&run.output)
            .with_context(|| format!("ask doctor on linux {} (it ended with {})", run.release, run.status))?;
        let troubles = support.troubles();
        ensure!(run.status == 0, "linux {} can't enforce all:\n{}", run.release, troubles.join("\n"));
        let Some(series) = kernel::series(&run.release) else {
            bail!("`{}` is no release of a kernel, so its numbers have no place; leave it out", run.release);
        };
        let loaded = support.hooks().into_iter().filter_map(|hook| {
            let (verified, translated) = (hook.verified_instructions?, hook.translated_instructions?);
            Some((hook.name().to_owned(), verified, translated))
        });
        found.push(Measured { series, hooks: loaded.collect() });
    }
    Ok(found)
}
