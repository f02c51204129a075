//! Programs that the kernel skipped: what they should have judged passed, so a number that grows is told, and stays a reason
//! not to be ready for as long as the programs are loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::node::Node;
use crate::bpf::ProgramMisses;

/// How often the numbers are read. What was skipped has passed already, so looking sooner prevents nothing; and for each
/// program the kernel adds up the counters of all processors.
pub const EVERY: Duration = Duration::from_secs(10);

/// What is known of the programs that were skipped.
#[derive(Clone, Debug, Default)]
pub struct Misses {
    counts: BTreeMap<&'static str, u64>,
    unknown: BTreeMap<&'static str, String>,
}

impl Misses {
    /// Looks at the numbers, and says for each hook whose number has grown since the last time by how much. They begin at 0
    /// with the programs.
    pub fn look(&mut self, read: impl FnOnce() -> Vec<ProgramMisses>) -> Vec<(&'static str, u64)> {
        self.unknown.clear();
        let mut grown = Vec::new();
        for ProgramMisses { hook, count } in read() {
            match count {
                Ok(count) => {
                    let before = self.counts.insert(hook, count).unwrap_or(0);
                    if count > before {
                        grown.push((hook, count - before));
                    }
                }
                // The last number that was read stays: what was skipped then stays skipped.
                Err(why) => {
                    self.unknown.insert(hook, why);
                }
            }
        }
        grown
    }

    /// How often the program of a hook was skipped; `None` where none is loaded, or no number could be read.
    pub fn count(&self, hook: &str) -> Option<u64> {
        self.counts.get(hook).copied()
    }

    /// Each hook whose number was read, and the number.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(hook, count)| (*hook, *count))
    }

    /// Why it is not certain that everything was judged; empty where it is.
    pub fn reasons(&self) -> Vec<String> {
        let skipped = self.counts.iter().filter(|(_, count)| **count > 0);
        let mut reasons: Vec<String> = skipped
            .map(|(hook, count)| {
                let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
                format!("hook {hook}: the kernel skipped its program {times}, and what it should have judged passed")
            })
            .collect();
        // All have the same trouble, so one of them is enough.
        if let Some((hook, why)) = self.unknown.first_key_value() {
            let others = self.unknown.len() - 1;
            let others = if others > 0 { format!(" (nor of {others} more)") } else { String::new() };
            reasons.push(format!("hook {hook}: how often the kernel skipped its program is not known{others}: {why}"));
        }
        reasons
    }
}

impl Node {
    /// Reads how often programs were skipped, from the `/proc` at this path; see [`Misses::look`].
    pub fn check_misses(&mut self, proc: &Path) -> Vec<(&'static str, u64)> {
        self.misses.look(|| self.programs.recursion_misses(proc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(counts: &[(&'static str, Result<u64, &str>)]) -> impl FnOnce() -> Vec<ProgramMisses> {
        let misses = |(hook, count): &(&'static str, Result<u64, &str>)| ProgramMisses {
            hook,
            count: count.map_err(str::to_owned),
        };
        let counts = counts.iter().map(misses).collect();
        move || counts
    }

    #[test]
    fn numbers_that_stay_0_are_no_reason() {
        let mut misses = Misses::default();
        assert_eq!(misses.look(read(&[("file_open", Ok(0)), ("sys_enter", Ok(0))])), []);
        assert_eq!(misses.reasons(), [""; 0]);
        assert_eq!((misses.count("file_open"), misses.count("capable")), (Some(0), None));
    }

    #[test]
    fn a_number_that_grows_is_told_once_and_stays_a_reason() {
        let mut misses = Misses::default();
        misses.look(read(&[("file_open", Ok(0)), ("capable", Ok(0))]));
        assert_eq!(misses.look(read(&[("file_open", Ok(3)), ("capable", Ok(0))])), [("file_open", 3)]);
        let reasons = misses.reasons();
        assert!(
            matches!(reasons.as_slice(), [one] if one.contains("file_open") && one.contains("3 times")),
            "{reasons:?}"
        );
        assert_eq!(misses.look(read(&[("file_open", Ok(3)), ("capable", Ok(0))])), []);
        assert_eq!(misses.reasons(), reasons);
        // Another reason than before, so the daemon tells of it anew.
        assert_eq!(misses.look(read(&[("file_open", Ok(5)), ("capable", Ok(1))])), [("file_open", 2), ("capable", 1)]);
        let reasons = misses.reasons().join("\n");
        assert!(
            reasons.contains("5 times") && reasons.contains("capable: the kernel skipped its program once"),
            "{reasons}"
        );
        assert_eq!(misses.counts().collect::<Vec<_>>(), [("capable", 1), ("file_open", 5)]);
    }

    #[test]
    fn what_was_skipped_before_the_first_look_counts() {
        assert_eq!(Misses::default().look(read(&[("mmap_file", Ok(2))])), [("mmap_file", 2)]);
    }

    #[test]
    fn a_number_that_can_not_be_read_is_a_reason_until_it_can() {
        let mut misses = Misses::default();
        misses.look(read(&[("file_open", Ok(1)), ("capable", Ok(0))]));
        assert_eq!(misses.look(read(&[("file_open", Err("no such file")), ("capable", Err("the same"))])), []);
        let reasons = misses.reasons().join("\n");
        assert!(reasons.contains("program once") && reasons.contains("is not known (nor of 1 more)"), "{reasons}");
        misses.look(read(&[("file_open", Ok(1)), ("capable", Ok(0))]));
        assert_eq!(misses.reasons().len(), 1);
    }
}
