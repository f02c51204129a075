//! The numbers of `verifier.tsv`: reading, comparing, writing. Pure: text and numbers in, problems out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

const HEAD: &str = "\
# Instructions that the verifier goes through for each program, on all paths together (it refuses more than a million), and
# instructions that the program has, by series of kernels. `cargo xtask ci --bless-verifier` writes this file.
hook\tkernel\tverified\ttranslated
";

/// What to do where the file does not fit.
const BLESS: &str = "`cargo xtask ci --bless-verifier` writes it anew, to be committed with the change";

/// Major and minor number of a kernel.
type Series = (u32, u32);

/// The programs of one kernel: name of the hook, instructions verified, instructions translated.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The kernel's series.
    pub series: Series,
    /// Its programs.
    pub hooks: Vec<(String, u32, u32)>,
}

/// All numbers, by hook and series.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Budget(BTreeMap<(String, Series), (u32, u32)>);

impl Budget {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut numbers = BTreeMap::new();
        let rows = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.starts_with("hook\t"));
        for (index, line) in rows {
            let row = || -> Option<_> {
                let cells: Vec<&str> = line.split('\t').collect();
                let [hook, series, verified, translated] = cells.as_slice() else { return None };
                let (major, minor) = series.split_once('.')?;
                let series = (major.parse().ok()?, minor.parse().ok()?);
                Some((((*hook).to_owned(), series), (verified.parse().ok()?, translated.parse().ok()?)))
            };
            let (key, value) =
                row().with_context(|| format!("line {}: not hook, kernel and two numbers; {BLESS}", index + 1))?;
            ensure!(
                numbers.insert(key, value).is_none(),
                "line {}: its hook and kernel stand twice; {BLESS}",
                index + 1
            );
        }
        Ok(Self(numbers))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for ((hook, (major, minor)), (verified, translated)) in &self.0 {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{hook}\t{major}.{minor}\t{verified}\t{translated}");
        }
        text
    }

    /// Takes the numbers of these kernels in place of what was there for their series.
    pub fn replace(&mut self, found: &[Measured]) {
        for measured in found {
            self.0.retain(|(_, series), _| *series != measured.series);
            for (hook, verified, translated) in &measured.hooks {
                self.0.insert((hook.clone(), measured.series), (*verified, *translated));
            }
        }
    }

    /// What fails, and what a person should know.
    pub fn compare(&self, found: &[Measured]) -> (Vec<String>, Vec<String>) {
        let (mut problems, mut notes) = (Vec::new(), Vec::new());
        for Measured { series, hooks } in found {
            let name = format!("{}.{}", series.0, series.1);
            let Some(against) = self.nearest(*series) else {
                problems.push(format!("no kernel has a line; {BLESS}"));
                continue;
            };
            if against != *series {
                notes.push(format!(
                    "linux {name} has no lines yet, so it is compared with {}.{}; {BLESS}",
                    against.0, against.1
                ));
            }
            let mut without_line = Vec::new();
            for (hook, now, _) in hooks {
                let Some(&(before, _)) = self.0.get(&(hook.clone(), against)) else {
                    without_line.push(hook.as_str());
                    continue;
                };
                let change = format!("hook {hook} on linux {name}: {before} -> {now} verified instructions");
                let tenth = u64::from(before) / 10;
                if u64::from(*now) > u64::from(before) + tenth {
                    problems.push(format!("{change}, more than a tenth; make it smaller, or {BLESS}"));
                } else if u64::from(*now) + tenth < u64::from(before) {
                    notes.push(format!("{change}; {BLESS}"));
                }
            }
            if !without_line.is_empty() {
                problems.push(format!("no line for linux {name} and {}; {BLESS}", without_line.join(", ")));
            }
            let gone = self.0.keys().filter(|(hook, of)| of == series && !hooks.iter().any(|(name, ..)| name == hook));
            problems.extend(gone.map(|(hook, _)| {
                format!("hook {hook} has a line for linux {name}, which runs no program on it; {BLESS}")
            }));
        }
        (problems, notes)
    }

    /// The series to compare with: its own; for one that the file does not know, such as a newer kernel than when it was
    /// written, the highest below it, or else the lowest.
    fn nearest(&self, series: Series) -> Option<Series> {
        let known = || self.0.keys().map(|(_, known)| *known);
        known().filter(|known| *known <= series).max().or_else(|| known().min())
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Measured};

    fn measured(series: (u32, u32), hooks: &[(&str, u32)]) -> Measured {
        let hooks = hooks.iter().map(|(name, verified)| ((*name).to_owned(), *verified, 7)).collect();
        Measured { series, hooks }
    }

    fn budget() -> Budget {
        let mut budget = Budget::default();
        budget.replace(&[measured((6, 1), &[("a", 1000), ("b", 50)]), measured((6, 12), &[("a", 900), ("b", 50)])]);
        budget
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = budget().text();
        assert!(text.ends_with("a\t6.1\t1000\t7\na\t6.12\t900\t7\nb\t6.1\t50\t7\nb\t6.12\t50\t7\n"), "{text}");
        assert_eq!(Budget::parse(&text).expect("it was just written"), budget());
    }

    #[test]
    fn a_broken_line_is_named() {
        for text in ["a\t6.1\t5", "a\t6\t5\t6", "a\t6.1\tx\t6", "a\t6.1\t5\t6\na\t6.1\t5\t6"] {
            let error = Budget::parse(text).expect_err("a broken line is an error").to_string();
            assert!(error.starts_with("line ") && error.contains("--bless-verifier"), "{error}");
        }
    }

    #[test]
    fn a_tenth_more_is_well_and_one_above_is_not() {
        let compare = |a: u32| budget().compare(&[measured((6, 1), &[("a", a), ("b", 50)])]);
        assert_eq!(compare(1100), (vec![], vec![]));
        assert_eq!(compare(900), (vec![], vec![]));
        let (problems, notes) = compare(1101);
        assert!(problems.len() == 1 && notes.is_empty() && problems[0].contains("1000 -> 1101"), "{problems:?}");
        let (problems, notes) = compare(899);
        assert!(problems.is_empty() && notes.len() == 1, "{notes:?}");
    }

    #[test]
    fn a_hook_without_a_line_and_a_line_without_a_hook_are_told_with_what_to_do() {
        let (problems, _) = budget().compare(&[measured((6, 1), &[("a", 1000), ("c", 1)])]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains("--bless-verifier")), "{problems:?}");
    }

    #[test]
    fn a_series_without_lines_is_compared_with_the_one_below() {
        let (problems, notes) = budget().compare(&[measured((7, 3), &[("a", 991), ("b", 50)])]);
        assert!(problems.len() == 1 && notes.len() == 1 && problems[0].contains("900 -> 991"), "{problems:?}");
    }

    #[test]
    fn lines_of_other_series_stay() {
        let mut budget = budget();
        budget.replace(&[measured((6, 12), &[("a", 1)])]);
        assert!(budget.text().ends_with("a\t6.1\t1000\t7\na\t6.12\t1\t7\nb\t6.1\t50\t7\n"));
    }
}
