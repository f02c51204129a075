//! `cargo xtask test --all-kernels`: doctor and the scenarios on the highest release of every series that Debian's suites
//! hold, and the table of what came of it.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::ci::scenarios;
use crate::kernel::{self, Spec};
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
each booted with `bpf` among its LSMs, asked by `agent-monitor doctor`, and taken through all scenarios.

| kernel | Debian | enforcement | scenarios | hooks that it lacks, or why it is refused |
| --- | --- | --- | --- | --- |
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

/// Boots them all and writes the table; a kernel that does not what it must is a failure, after all have run.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let kernel::Stock { kernels, unread } = kernel::all(workspace)?;
    let specs: Vec<Spec> = kernels.iter().map(|(kernel, _)| Spec::Cached(kernel.release.clone())).collect();
    let mut options = scenarios::machine(workspace, &specs, COMMAND)?;
    options.output = vm::Output::Kept;
    let runs = vm::run_on_all(workspace, &options)?;
    ensure!(runs.iter().all(|run| run.status != vm::INTERRUPTED), "interrupted: {FILE} stays as it is");
    let rows: Vec<Row> = runs
        .iter()
        .zip(&kernels)
        .map(|(run, (kernel, suite))| {
            row(run, suite, kernel::series(&kernel.release).is_some_and(|series| series >= OLDEST))
        })
        .collect();
    let path = workspace.root.join(FILE);
    std::fs::write(&path, text(&rows, &unread)).with_context(|| format!("write {}", path.display()))?;
    let failed = rows.iter().filter(|row| !row.is_well).count();
    println!("{FILE} is written: {} kernels are as they must be, {failed} are not", rows.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
fn text(rows: &[Row], unread: &[&str]) -> String {
    let mut text = HEAD.to_owned();
    for Row { release, suite, enforcement, scenarios, remarks, .. } in rows {
        let remarks = remarks.replace('|', "\\|");
        text.push_str(&format!("| {release} | {suite} | {enforcement} | {scenarios} | {remarks} |\n"));
    }
    if !unread.is_empty() {
        text.push_str(&format!("\nSuites that the mirror did not have: {}.\n", unread.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{row, text};
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
        let rows = [
            row(&run("full", "available", "\n9 passed, 0 failed, 2 skipped\n", 0), "sid", true),
            row(&run("none", "missing", "", 2), "bullseye", false),
        ];
        let text = text(&rows, &["forky"]);
        let tail = "| 6.1.0-9-cloud-amd64 | sid | full | 9 passed, 0 failed, 2 skipped | `a` |\n\
                    | 6.1.0-9-cloud-amd64 | bullseye | none | not run | all hooks: missing: no \\| such |\n\n\
                    Suites that the mirror did not have: forky.\n";
        assert!(text.ends_with(tail), "{text}");
    }
}
