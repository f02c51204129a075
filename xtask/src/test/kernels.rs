//! `cargo xtask test --all-kernels`: doctor and the scenarios on the highest release of every series that Debian's suites
//! hold, and the table of what came of it. It takes hours where QEMU interprets the machines: with `--kernel` only some are
//! run, and the lines of the others stay.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::ci::{pool, scenarios};
use crate::kernel::{self, Kernel, Spec};
use crate::process;
use crate::support::Support;
use crate::vm;
use crate::workspace::Workspace;

/// What this writes.
const FILE: &str = "docs/kernel-support.md";
/// The oldest series that must be enforced on in full.
const OLDEST: (u32, u32) = (6, 1);
/// Where doctor finds that all can be enforced, the scenarios; they are shown on standard error, and kept.
const COMMAND: &str = "set -o pipefail; agent-monitor doctor -o json && { /root/scenarios | tee /dev/stderr; }";

const HEAD: &str = "\
# Kernels

Written by `cargo xtask test --all-kernels`: the highest release of every series of stock kernels that Debian's suites hold,
each booted with `bpf` among its LSMs, asked by `agent-monitor doctor`, and taken through all scenarios, at this commit.

| kernel | Debian | commit | enforcement | scenarios | hooks that it lacks, or why it is refused |
| --- | --- | --- | --- | --- | --- |
";

/// What came of a kernel.
struct Row {
    release: String,
    suite: &'static str,
    enforcement: String,
    scenarios: String,
    remarks: String,
    is_well: bool,
}

/// The lines of the table, by the kernels' series.
type Lines = BTreeMap<(u32, u32), String>;

/// Boots them all, or those that are wanted, and writes the table; a kernel that does not what it must is a failure, after all
/// have run.
pub fn run(workspace: &Workspace, wanted: &[Spec]) -> Result<ExitCode> {
    let kernel::Stock { kernels, unread } = kernel::all(workspace)?;
    let path = workspace.root.join(FILE);
    let commit = commit(workspace)?;
    let mut lines = lines(&std::fs::read_to_string(&path).unwrap_or_default());
    lines.retain(|series, _| kernels.iter().any(|(kernel, _)| kernel::series(&kernel.release) == Some(*series)));
    let newest = kernels.last().map(|(kernel, _)| kernel.release.clone());
    let is_meant = |spec: &Spec, kernel: &Kernel| match spec {
        Spec::Newest => newest.as_ref() == Some(&kernel.release),
        Spec::Series(series) => kernel::series(series) == kernel::series(&kernel.release),
        Spec::Path(_) | Spec::Cached(_) => false,
    };
    for spec in wanted {
        let is_there = kernels.iter().any(|(kernel, _)| is_meant(spec, kernel));
        ensure!(is_there, "`{spec}` is no stock kernel that Debian's suites hold, so it has no line in {FILE}");
    }
    let is_wanted = |kernel: &Kernel| wanted.is_empty() || wanted.iter().any(|spec| is_meant(spec, kernel));
    let chosen: Vec<_> = kernels.iter().filter(|(kernel, _)| is_wanted(kernel)).collect();
    let (mut well, mut failed) = (0, 0);
    for some in chosen.chunks(pool::AT_ONCE) {
        let specs: Vec<Spec> = some.iter().map(|(kernel, _)| Spec::Cached(kernel.release.clone())).collect();
        let mut options = scenarios::machine(workspace, &specs, COMMAND)?;
        options.output = vm::Output::Kept;
        let runs = vm::run_on_all(workspace, &options)?;
        ensure!(runs.iter().all(|run| run.status != vm::INTERRUPTED), "interrupted: the other lines of {FILE} stay");
        for (run, (kernel, suite)) in runs.iter().zip(some) {
            let Some(series) = kernel::series(&kernel.release) else { continue };
            let row = row(run, suite, series >= OLDEST);
            *if row.is_well { &mut well } else { &mut failed } += 1;
            lines.insert(series, row.line(&commit));
        }
        // What is done is not done again if the next ones are interrupted.
        std::fs::write(&path, text(&lines, &unread)).with_context(|| format!("write {}", path.display()))?;
    }
    println!("{FILE} is written: {well} kernels are as they must be, {failed} are not");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was tested.
fn commit(workspace: &Workspace) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root).args(["describe", "--always", "--exclude", "*"]);
    let commit = process::output(&mut git, "ask git for the commit")?;
    // The table itself changes nothing of what is tested.
    let mut git = Command::new("git");
    git.current_dir(&workspace.root).args(["status", "--porcelain", "--", ".", &format!(":!{FILE}")]);
    let changed = process::output(&mut git, "ask git for changes")?;
    Ok(commit.trim().to_owned() + if changed.is_empty() { "" } else { "-dirty" })
}

/// The lines of a table that was written before.
fn lines(text: &str) -> Lines {
    let release = |line: &str| kernel::series(line.strip_prefix("| ")?.split(' ').next()?);
    text.lines().filter_map(|line| Some((release(line)?, line.to_owned()))).collect()
}

impl Row {
    fn line(&self, commit: &str) -> String {
        let Self { release, suite, enforcement, scenarios, remarks, .. } = self;
        let remarks = remarks.replace('|', "\\|");
        format!("| {release} | {suite} | {commit} | {enforcement} | {scenarios} | {remarks} |")
    }
}

fn row(run: &vm::Run, suite: &'static str, is_supported: bool) -> Row {
    let (release, nothing) = (run.release.clone(), "not run".to_owned());
    let support = match Support::read(&run.output) {
        Ok(support) => support,
        Err(error) => {
            eprintln!("xtask: linux {release}: {error:#}");
            let remarks = format!("the machine failed (status {})", run.status);
            return Row {
                release,
                suite,
                enforcement: "unknown".to_owned(),
                scenarios: nothing,
                remarks,
                is_well: false,
            };
        }
    };
    if support.enforcement != "full" {
        support.troubles().iter().for_each(|trouble| eprintln!("xtask: linux {release}: {trouble}"));
        let remarks = support.reasons().join("; ");
        let is_well = !is_supported && support.enforcement == "none";
        return Row { release, suite, enforcement: support.enforcement, scenarios: nothing, remarks, is_well };
    }
    let sum = run.output.lines().rev().find(|line| line.contains(" passed, ") && line.contains(" failed"));
    let is_well = is_supported && run.status == 0 && sum.is_some();
    let scenarios = sum.map_or_else(|| format!("did not end (status {})", run.status), str::to_owned);
    let lacks: Vec<String> = support.lacks().iter().map(|hook| format!("`{hook}`")).collect();
    let mut remarks = lacks.join(", ");
    if !is_supported {
        remarks = format!("older than {}.{}, and not refused", OLDEST.0, OLDEST.1);
    }
    Row { release, suite, enforcement: support.enforcement, scenarios, remarks, is_well }
}

/// The whole file. No date and no time in it: the same results give the same bytes.
fn text(lines: &Lines, unread: &[&str]) -> String {
    let mut text = HEAD.to_owned();
    lines.values().for_each(|line| text.extend([line, "\n"]));
    if !unread.is_empty() {
        text.push_str(&format!("\nSuites that the mirror did not have: {}.\n", unread.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{HEAD, Lines, lines, row, text};
    use crate::vm::Run;

    fn run(enforcement: &str, state: &str, rest: &str, status: u8) -> Run {
        let output = format!(
            r#"{{"enforcement": "{enforcement}", "features": [{{"feature": "hook a", "state": "{state}", "detail": "no | such\nhook"}}]}}{rest}"#
        );
        Run { release: "6.1.0-9-cloud-amd64".to_owned(), status, output }
    }

    #[test]
    fn a_kernel_is_well_if_it_does_what_its_age_asks_for() {
        let well = |run: &Run, is_supported| row(run, "sid", is_supported).is_well;
        assert!(well(&run("full", "available", "\n9 passed, 0 failed\n", 0), true));
        assert!(!well(&run("full", "available", "\n9 passed, 1 failed\n", 1), true));
        assert!(!well(&run("full", "available", "", 0), true));
        assert!(!well(&run("full", "available", "\n9 passed, 0 failed\n", 0), false));
        assert!(!well(&run("none", "missing", "", 2), true));
        assert!(well(&run("none", "missing", "", 2), false));
        assert!(!well(&Run { release: String::new(), status: 124, output: String::new() }, false));
    }

    #[test]
    fn the_table_has_a_line_for_each_kernel() {
        let newer = row(&run("full", "available", "\n9 passed, 0 failed, 2 skipped\n", 0), "sid", true);
        let older = row(&run("none", "missing", "", 2), "bullseye", false);
        let both = Lines::from([((6, 1), newer.line("abc")), ((5, 10), older.line("def"))]);
        let written = text(&both, &["forky"]);
        let table = "| 6.1.0-9-cloud-amd64 | bullseye | def | none | not run | all hooks: missing: no \\| such |\n\
                     | 6.1.0-9-cloud-amd64 | sid | abc | full | 9 passed, 0 failed, 2 skipped | `a` |\n\n\
                     Suites that the mirror did not have: forky.\n";
        assert_eq!(written, HEAD.to_owned() + table);
    }

    #[test]
    fn lines_of_kernels_that_are_not_run_stay() {
        let head = HEAD.to_owned();
        let line = "| 6.12.3-cloud-amd64 | trixie | abc | full | 9 passed, 0 failed | |";
        assert_eq!(lines(&(head + line + "\n")), Lines::from([((6, 12), line.to_owned())]));
        assert!(lines("").is_empty());
    }
}
