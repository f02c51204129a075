//! docs/bypasses.md against the tests: a line that says `denied` or `recorded` names a test that exists, one that says
//! `open` gives its reason. Columns: id, what the agent tries, outcome, test or reason.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use super::scan;
use crate::workspace::Workspace;

const DOCUMENT: &str = "docs/bypasses.md";

/// Where tests may be.
const PLACES: [&str; 5] = [
    "tests/src",
    "agent-monitor/src",
    "agent-monitor-common/src",
    "agent-monitor-ebpf/src",
    "agent-monitor-policy/src",
];

/// Returns the lines that claim what no test shows.
pub fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root.join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut functions = BTreeSet::new();
    for place in PLACES.map(|place| workspace.root.join(place)).iter().filter(|place| place.is_dir()) {
        for file in scan::rust_files(place)? {
            let source = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let tokens = scan::tokens(&source);
            let is_function = |pair: &&[scan::Token]| pair[0].text == "fn";
            functions.extend(tokens.windows(2).filter(is_function).map(|pair| pair[1].text.clone()));
        }
    }
    Ok(problems(&text, &functions))
}

fn problems(text: &str, functions: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut rows = 0;
    let mut ids = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let mut complain = |what: String| problems.push(format!("{DOCUMENT}:{}: {what}", index + 1));
        let Some(cells) = cells(line) else { continue };
        let is_rule = |cell: &String| cell.chars().all(|c| c == '-' || c == ':');
        if cells.iter().all(is_rule) || cells[0] == "id" {
            continue;
        }
        let [id, _, outcome, proof] = cells.as_slice() else {
            complain(format!(
                "{} columns, not the four of id, what the agent tries, outcome, test or reason",
                cells.len()
            ));
            continue;
        };
        rows += 1;
        if !ids.insert(id.clone()) {
            complain(format!("id {id} stands twice"));
        }
        match outcome.as_str() {
            "denied" | "recorded" => {
                let tests = test_names(proof);
                if tests.is_empty() {
                    complain(format!("{id} is said to be {outcome}, and names no test"));
                }
                for test in tests.iter().filter(|test| !functions.contains(*test)) {
                    complain(format!("{id} names the test `{test}`, which does not exist"));
                }
            }
            "open" if proof.is_empty() => complain(format!("{id} is open, and gives no reason")),
            "open" => {}
            other => complain(format!("{id} has the outcome `{other}`; it is one of denied, recorded, open")),
        }
    }
    if rows == 0 {
        problems.push(format!("{DOCUMENT} has no table of ways round"));
    }
    problems
}

/// Cells of a table's row. A `\|` belongs to its cell.
fn cells(line: &str) -> Option<Vec<String>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{0}");
    Some(inside.split('|').map(|cell| cell.trim().trim_matches('*').replace('\u{0}', "|")).collect())
}

/// Names of tests in a cell: words that could be functions, in backticks or alone; a path's last part is the name.
fn test_names(cell: &str) -> Vec<String> {
    let in_ticks = cell.split('`').skip(1).step_by(2);
    let words: Vec<&str> = if cell.contains('`') { in_ticks.collect() } else { cell.split([',', ' ']).collect() };
    let name = |word: &&str| word.rsplit("::").next().unwrap_or_default().trim().to_owned();
    words.iter().map(name).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::problems;

    fn check(rows: &str) -> Vec<String> {
        let functions = ["denied_rename", "recorded_kill"].map(str::to_owned).into();
        problems(
            &format!(
                "# Ways round\n| id | what the agent tries | outcome | test or reason |\n| --- | :-- | --- | --- |\n{rows}"
            ),
            &functions,
        )
    }

    #[test]
    fn lines_with_their_tests_are_well() {
        let rows = "| a1 | renames | denied | `files::denied_rename` |\n| a2 | kills \\| ends | recorded | recorded_kill |\n\
                    | a3 | waits | open | a covert channel is out of reach |\n";
        assert_eq!(check(rows), [""; 0]);
    }

    #[test]
    fn a_claim_without_its_test_fails() {
        assert_eq!(check("| a | b | denied | `no_such_test` |").len(), 1);
        assert_eq!(check("| a | b | recorded | |").len(), 1);
        assert_eq!(check("| a | b | open | |").len(), 1);
        assert_eq!(check("| a | b | perhaps | `denied_rename` |").len(), 1);
        assert_eq!(check("| a | b | denied |").len(), 2);
        assert_eq!(check("| a | b | open | c |\n| a | b | open | c |").len(), 1);
    }

    #[test]
    fn a_document_without_a_table_fails() {
        assert_eq!(check("").len(), 1);
    }
}
