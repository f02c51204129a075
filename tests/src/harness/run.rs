//! Running scenarios: which, in which order, and what is said about them.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::mount::Mount;
use super::records::{LOG, Records};
use super::{Outcome, Scene};
use crate::scenario::ALL;
use crate::work;

/// What a scenario needs.
#[derive(Clone, Copy)]
pub enum Group {
    /// A daemon that is shared with others.
    Node(fn(&mut Scene<'_>) -> Outcome),
    /// The same, and has its programs loaded anew meanwhile, which takes long.
    Anew(fn(&mut Scene<'_>) -> Outcome),
    /// No daemon: it runs before one is started.
    Alone(fn() -> Outcome),
    /// A kernel without `bpf` in `lsm=`; another boot.
    NoLsm(fn() -> Outcome),
    /// A daemon that is shared with others, and ten seconds or more.
    Races(fn(&mut Scene<'_>) -> Outcome),
    /// A daemon that is shared with others, and minutes.
    Endurance(fn(&mut Scene<'_>) -> Outcome),
    /// Daemons of its own, and as long as it is told.
    Soak(fn() -> Outcome),
    /// A distribution's own programs, and the node's daemon.
    Work(fn() -> Outcome),
    /// A distribution's own programs, and no daemon.
    WorkAlone(fn() -> Outcome),
}

impl Group {
    /// The word of `--group` that selects it; those without a word are selected by none.
    fn word(&self) -> Option<&'static str> {
        match self {
            Self::Node(_) | Self::Anew(_) | Self::Alone(_) => None,
            Self::NoLsm(_) => Some("no-lsm"),
            Self::Races(_) => Some("races"),
            Self::Endurance(_) => Some("endurance"),
            Self::Soak(_) => Some("soak"),
            Self::Work(_) | Self::WorkAlone(_) => Some("work"),
        }
    }

    /// Whether programs are loaded for it alone, of those that no word selects: `--part` shares these out, and `--shared`
    /// leaves them.
    fn loads(&self) -> bool {
        matches!(self, Self::Alone(_) | Self::Anew(_))
    }
}

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The function's name, a sentence.
    pub name: &'static str,
    /// What it needs, and the function.
    pub run: Group,
}

/// The table of a file's scenarios, all of one group.
#[macro_export]
macro_rules! scenarios {
    ($group:ident: $($name:ident),+ $(,)?) => {
        &[$($crate::harness::Scenario { name: stringify!($name), run: $crate::harness::Group::$group($name) }),+]
    };
}

/// Why a scenario was skipped.
#[derive(Debug)]
struct Skipped(String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Ends a scenario whose need is not met here.
pub fn skip(reason: &str) -> anyhow::Error {
    anyhow::Error::new(Skipped(reason.to_owned()))
}

/// Runs what the arguments select: words of names, `--list`, `--times`, `--group no-lsm`, `races`, `endurance`, `soak` or
/// `work`, `--shared` (only those that share a daemon), `--part 1/2` (of those that do not only every second, from the first
/// on), `--no-skip` (what would be skipped fails).
pub fn run(arguments: &[String]) -> ExitCode {
    let list = arguments.iter().any(|word| word == "--list");
    let shared = arguments.iter().any(|word| word == "--shared");
    let value = |name: &str| {
        let at = arguments.iter().position(|word| word == name);
        at.and_then(|at| arguments.get(at + 1)).map(String::as_str)
    };
    let (group, part) = (value("--group"), value("--part"));
    let (own, all) = match part.map(|text| parse_part(text).ok_or(text)) {
        None => (1, 1),
        Some(Ok(part)) => part,
        Some(Err(text)) => {
            println!("{text} is no part: write 1/2 for the first of two");
            return ExitCode::FAILURE;
        }
    };
    let is_value = |word: &&String| [group, part].contains(&Some(word.as_str()));
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with("--") && !is_value(word)).collect();
    let selected = |scenario: &&Scenario| {
        let wanted = words.is_empty() || words.iter().any(|word| scenario.name.contains(word.as_str()));
        wanted && scenario.run.word() == group && !(shared && scenario.run.loads())
    };
    let mut loading = 0;
    let in_part = |scenario: &&Scenario| {
        loading += usize::from(scenario.run.loads());
        !scenario.run.loads() || loading % all == own % all
    };
    let known = ALL.iter().chain(work::ALL).copied().flatten();
    let mut scenarios: Vec<&Scenario> = known.filter(selected).filter(in_part).collect();
    // Those that must have no daemon come first.
    scenarios.sort_by_key(|scenario| {
        matches!(scenario.run, Group::Node(_) | Group::Anew(_) | Group::Races(_) | Group::Endurance(_) | Group::Work(_))
    });
    if scenarios.is_empty() {
        println!("no scenario is selected by {arguments:?}; --list shows the names of a group");
        return ExitCode::FAILURE;
    }
    if list {
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name));
        return ExitCode::SUCCESS;
    }
    let times = arguments.iter().any(|word| word == "--times");
    let no_skip = arguments.iter().any(|word| word == "--no-skip");
    let mut totals = Totals { times, no_skip, ..Totals::default() };
    let mut node = None;
    let _disk = match disk() {
        Ok(disk) => disk,
        Err(error) => {
            println!("there is no disk for the log: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    for (number, scenario) in scenarios.iter().enumerate() {
        print!("test {} ... ", scenario.name);
        let _ = std::io::stdout().flush();
        let start = std::time::Instant::now();
        let outcome = match scenario.run {
            Group::Alone(function) | Group::NoLsm(function) | Group::Soak(function) | Group::WorkAlone(function) => {
                function()
            }
            Group::Node(function) | Group::Anew(function) | Group::Races(function) | Group::Endurance(function) => {
                on_node(&mut node, |node| node_scene(node, number, function))
            }
            Group::Work(function) => on_node(&mut node, |_| function()),
        };
        let hopeless = outcome.as_ref().is_err_and(|error| error.is::<NoDaemon>());
        totals.tell(outcome, start.elapsed().as_secs_f32());
        if hopeless {
            println!("no daemon starts: the other scenarios that need one are not tried");
            break;
        }
    }
    if let Some((daemon, _)) = node {
        let end = daemon.stop();
        if !end.as_ref().is_ok_and(std::process::ExitStatus::success) {
            println!("the daemon ended with {end:?}:\n{}", super::daemon::log_text());
            totals.failed += 1;
        }
        if let Err(error) = super::daemon::uninstall() {
            println!("{error:#}");
            totals.failed += 1;
        }
    }
    totals.end()
}

/// Which of how many parts, counted from one.
fn parse_part(text: &str) -> Option<(usize, usize)> {
    let (own, all) = text.split_once('/')?;
    let (own, all) = (own.parse().ok()?, all.parse().ok()?);
    (1..=all).contains(&own).then_some((own, all))
}

type Node = (Daemon, Records);

/// The first daemon did not start, so none will.
#[derive(Debug)]
struct NoDaemon(anyhow::Error);

impl std::fmt::Display for NoDaemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for NoDaemon {}

/// With a daemon, which the first one starts.
fn on_node(node: &mut Option<Node>, scenario: impl FnOnce(&mut Node) -> Outcome) -> Outcome {
    match node {
        Some(node) => scenario(node),
        None => scenario(node.insert(start().map_err(NoDaemon)?)),
    }
}

fn node_scene((daemon, records): &mut Node, number: usize, function: fn(&mut Scene<'_>) -> Outcome) -> Outcome {
    function(&mut Scene::new(number, daemon, records)?)
}

/// A disk of the log's own, which a scenario can fill.
fn disk() -> Result<Mount> {
    let directory = Path::new(LOG).parent().context("the log is in a directory")?;
    fs::create_dir_all(directory)?;
    let words = ["-t", "tmpfs", "-o", "size=256m,mode=750", "log"].map(OsStr::new);
    Mount::with(&[&words[..], &[directory.as_os_str()]].concat(), directory)
}

fn start() -> Result<Node> {
    let daemon = Daemon::start(&[])?;
    Ok((daemon, Records::open(Path::new(LOG))?))
}

#[derive(Default)]
struct Totals {
    times: bool,
    /// What can't be run here is a failure.
    no_skip: bool,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Totals {
    fn tell(&mut self, outcome: Outcome, seconds: f32) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok{}", self.time(seconds));
            }
            Err(error) if error.is::<Skipped>() && !self.no_skip => {
                self.skipped += 1;
                println!("skipped: {error}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED{}\n    {error:#}", self.time(seconds));
            }
        }
    }

    fn time(&self, seconds: f32) -> String {
        if self.times { format!(" ({seconds:.1} s)") } else { String::new() }
    }

    fn end(&self) -> ExitCode {
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        println!("{} passed, {} failed{skipped}", self.passed, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
