//! Races: what is judged changes, and what it is judged by, while it is judged. Each goes on for [`SECONDS`] on all
//! processors and prints how often what happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cgroup::{self, Cgroup};
use crate::harness::control::{ask, metric};
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Races:
    a_file_that_never_had_an_allowed_name_is_not_opened_while_directories_are_exchanged,
    a_file_that_never_had_an_allowed_name_is_not_opened_while_directories_above_it_move,
    a_policy_is_replaced_at_one_moment_for_all_files,
    a_cgroup_made_while_its_policy_changes_is_never_without_one,
    a_program_that_no_policy_allows_is_not_executed_while_bound,
    ten_thousand_cgroups_made_and_removed_leave_no_binding,
];

/// How long each race goes on.
const SECONDS: u64 = 10;
/// Directories between the two that move.
const DEPTH: usize = 150;

/// Stops a thread when it goes out of scope, also on the way out of a failure.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does `work` while `other` is done over and over in a thread; how often it was done.
fn against<T>(other: impl Fn() -> Outcome + Sync, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = Stop(&end);
        let thread = scope.spawn(|| -> Result<u64> {
            let mut times = 0;
            while !end.load(Ordering::Acquire) {
                other()?;
                times += 1;
            }
            Ok(times)
        });
        let done = work();
        drop(stop);
        let times = thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        Ok((done?, times))
    })
}

/// Opens the paths in threads of an agent, and gives for each how often it was opened, denied, and not found.
fn race(process: &mut Process, paths: &[&Path]) -> Result<Vec<[i64; 3]>> {
    let mut open = step!("race-open", SECONDS.to_string());
    open.extend(paths.iter().map(crate::harness::process::step));
    process.works(&open, "bound")?;
    counted(process, paths.len())
}

/// The counts of a race, by rows.
fn counted<const N: usize>(process: &mut Process, rows: usize) -> Result<Vec<[i64; N]>> {
    let mut count = |at: usize| process.works(&step!("counted", at.to_string()), "after the race");
    let mut all = vec![[0; N]; rows];
    for (at, place) in all.iter_mut().flatten().enumerate() {
        *place = count(at)?;
    }
    Ok(all)
}

const ONLY_ALLOWED: &str = "files:\n  - {allow: [read], paths: [\"$W/allowed/**\"]}\n";

/// Two directories change places. Each file has a name that is allowed half of the time, so either may be opened; a third
/// one, beside them, has such a name never.
fn a_file_that_never_had_an_allowed_name_is_not_opened_while_directories_are_exchanged(
    scene: &mut Scene<'_>,
) -> Outcome {
    let (denied, allowed) = (scene.path("denied/x"), scene.path("allowed/x"));
    let (secret, open) = (scene.file("denied/x/secret", "s"), scene.file("allowed/x/open", "o"));
    let never = scene.file("denied/y", "n");
    let alias = allowed.join("../../denied/y");
    let mut process = scene.process()?;
    scene.bind(ONLY_ALLOWED)?;
    let outsider = std::sync::Mutex::new(Process::start()?);
    let swap = || {
        let mut process = outsider.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        process.works(&step!("rename", denied, allowed, "exchange"), "an outsider").map(drop)
    };
    let (counts, swaps) = against(swap, || race(&mut process, &[&secret, &open, &never, &alias]))?;
    println!("{swaps} exchanges; secret, open, never, alias opened, denied, not found: {counts:?}");
    let [secret, open, never, alias] = counts.as_slice() else { anyhow::bail!("four files were raced") };
    ensure!(never[0] == 0 && alias[0] == 0, "a file with no allowed name was opened: {never:?} {alias:?}");
    // Neither found always in its place, nor never.
    ensure!(swaps > 100 && secret[1] > 0 && open[0] > 0, "nothing was raced");
    scene.unbind().map(drop)
}

/// `file` lies in D, which lies deep in E. D leaves E, then E gets an allowed name; then both go back. At each moment all
/// names of `file` are denied: only the upper half of its path as it is now, with the lower half as it was, would be
/// allowed.
fn a_file_that_never_had_an_allowed_name_is_not_opened_while_directories_above_it_move(
    scene: &mut Scene<'_>,
) -> Outcome {
    let between: PathBuf = (0..DEPTH).map(|number| format!("d{number}")).collect();
    let [private, public, aside] = ["denied/e", "allowed/e", "aside/d"].map(|name| scene.path(name));
    let inside = private.join(&between).join("d");
    let at = |above: &Path| above.join(&between).join("d/file");
    let file = scene.file(&format!("denied/e/{}/d/file", between.display()), "s");
    let open = scene.file("allowed/open", "o");
    fs::create_dir_all(scene.path("aside"))?;
    let mut process = scene.process()?;
    scene.bind(ONLY_ALLOWED)?;
    let moves = || {
        fs::rename(&inside, &aside)?;
        fs::rename(&private, &public)?;
        fs::rename(&public, &private)?;
        fs::rename(&aside, &inside).context("move a directory back")
    };
    let public_file = at(&public);
    let paths = [file.as_path(), &aside.join("file"), &public_file, &open];
    let (counts, times) = against(moves, || race(&mut process, &paths))?;
    println!("{times} times moved; inside, aside, public, open opened, denied, not found: {counts:?}");
    let [inside, aside, public, open] = counts.as_slice() else { anyhow::bail!("four paths were raced") };
    ensure!(
        inside[0] + aside[0] + public[0] == 0,
        "a file that had denied names only was opened {} + {} + {} times of {} tries, in {times} rounds of renames",
        inside[0],
        aside[0],
        public[0],
        inside[1] + aside[1] + public[1]
    );
    ensure!(times > 100 && inside[1] > 0 && open[0] > 0 && open[1] == 0, "nothing was raced");
    scene.unbind().map(drop)
}

/// A policy of the directory that allows one of two files, replaced by one that allows the other.
struct Turns {
    name: &'static str,
    files: [PathBuf; 2],
    /// Allowed by both.
    always: PathBuf,
    daemon: i64,
    done: AtomicI64,
}

impl Turns {
    fn new(scene: &Scene<'_>, name: &'static str) -> Result<Self> {
        let files = [scene.file("one", "1"), scene.file("two", "2")];
        let always = scene.file("always", "a");
        let turns = Self { name, files, always, daemon: scene.daemon.pid().into(), done: AtomicI64::new(0) };
        turns.turn()?;
        Ok(turns)
    }

    fn place(&self) -> PathBuf {
        Path::new(policy::DIRECTORY).join(format!("{}.yaml", self.name))
    }

    /// Which of the files the policy of a generation allows: the first generation is 1.
    fn allowed(&self, generation: u64) -> Option<&PathBuf> {
        self.files.get(usize::try_from(generation.checked_sub(1)? % 2).ok()?)
    }

    fn generation(&self) -> Result<u64> {
        let all = ask("GET", "/v1/policies", &Value::Null)?;
        let one = all.as_array().into_iter().flatten().find(|one| one["name"] == self.name);
        Ok(one.and_then(|one| one["generation"].as_u64()).unwrap_or(0))
    }

    /// Puts the next one in force, and comes back when it is.
    fn turn(&self) -> Outcome {
        let next = self.generation()? + 1;
        let file = self.allowed(next).context("generations are counted from 1")?;
        let spec = either(file, &self.always);
        let new = self.place().with_extension("new");
        fs::write(&new, policy::document(self.name, &spec, Path::new("/")))?;
        fs::rename(&new, self.place())?;
        let deadline = Instant::now() + crate::harness::wait::limit();
        Process::start()?.works(&step!("kill", self.daemon.to_string(), libc::SIGHUP.to_string()), "an outsider")?;
        while self.generation()? != next {
            ensure!(Instant::now() < deadline, "generation {next} of {} does not come", self.name);
        }
        self.done.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// A policy that allows reading one of two files, and a third.
pub fn either(file: &Path, always: &Path) -> String {
    format!("files:\n  - {{allow: [read], paths: [{file:?}, {always:?}]}}\n")
}

/// Fails unless what the step `race-turn` saw of so many replacements is what two policies decide that never mix.
pub fn mixed_nothing(process: &mut Process, replaced: u64) -> Outcome {
    let counts = counted::<5>(process, 1)?;
    let [tries, changes, third, fourth, other] = counts.first().copied().context("there are counts")?;
    println!(
        "{replaced} replaced; {tries} opens, {changes} changes seen, {third} of what both deny, {fourth} denials of what \
         both allow, {other} others"
    );
    ensure!(
        third == 0 && fourth == 0 && other == 0,
        "there are opens that neither policy allows, or denials of neither"
    );
    // More changes than replacements would be a file that both policies deny, or both allow.
    ensure!(changes > 0 && changes <= i64::try_from(replaced)?, "{changes} changes in {replaced} replacements");
    Ok(())
}

impl Drop for Turns {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.place());
    }
}

fn a_policy_is_replaced_at_one_moment_for_all_files(scene: &mut Scene<'_>) -> Outcome {
    let turns = Turns::new(scene, "scenario-turns")?;
    let never = scene.file("never", "n");
    let mut process = scene.process()?;
    let id = scene.bind_named(turns.name, json!({}))?;
    let [one, two] = &turns.files;
    let opens = step!("race-turn", SECONDS.to_string(), one, two, never, turns.always);
    let (_, replaced) = against(|| turns.turn(), || process.works(&opens, "bound"))?;
    mixed_nothing(&mut process, replaced)?;
    let counted = scene.unbind()?;
    let word = format!("\"id\":\"{id}\"");
    scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
    let mut denials = 0;
    for record in scene.records.about(scene.start, &word) {
        let record = record?;
        if record["type"] != "operation" {
            continue;
        }
        let generation = record["policy"]["generation"].as_u64().context("a record has a generation")?;
        let path = record["object"]["path"].as_str().unwrap_or_default();
        ensure!(record["reason"] == "no_rule", "not decided by the rules: {record}");
        ensure!(turns.allowed(generation).is_some_and(|file| file != Path::new(path)), "allowed by it: {record}");
        denials += 1;
    }
    println!("{denials} denials recorded, each by a policy that denies it; counted: {counted}");
    ensure!(denials > 0, "nothing was denied");
    scene.records.account(scene.start, &word, &counted, counted["denied"].as_u64().unwrap_or(0))
}

fn a_cgroup_made_while_its_policy_changes_is_never_without_one(scene: &mut Scene<'_>) -> Outcome {
    let turns = Turns::new(scene, "scenario-made")?;
    let never = scene.file("never", "n");
    let outside = scene.cgroup.directory();
    let root = cgroup::directory("/agents.slice");
    let below = root.join(turns.name);
    ensure!(below.is_dir(), "the policy has no cgroup");
    let mut process = scene.process()?;
    let (mut made, mut allowed) = (0_u64, [0_u64; 2]);
    let tries = || -> Outcome {
        let end = Instant::now() + Duration::from_secs(SECONDS);
        while Instant::now() < end {
            for (above, empty) in [(&root, true), (&below, false)] {
                let own = Cgroup::make(&format!("{}/race{made}", above.strip_prefix(cgroup::MOUNT)?.display()))?;
                made += 1;
                cgroup::enter(&own.directory(), process.pid())?;
                process.expect(&step!("open", never, "r"), EACCES, "in a new cgroup, what no policy allows")?;
                for (file, count) in turns.files.iter().zip(&mut allowed) {
                    let errno = process.run(&step!("open", file, "r"))?.0;
                    ensure!(errno == EACCES || errno == 0 && !empty, "in a new cgroup an open gave errno {errno}");
                    *count += u64::from(errno == 0);
                }
                cgroup::enter(&outside, process.pid())?;
                fs::remove_dir(own.directory())?;
            }
        }
        Ok(())
    };
    let ((), replaced) = against(|| turns.turn(), tries)?;
    println!("{replaced} replaced; {made} cgroups made; {allowed:?} opens of the two allowed");
    ensure!(replaced > 1 && allowed.iter().all(|count| *count > 0), "nothing was raced");
    Ok(())
}

fn a_program_that_no_policy_allows_is_not_executed_while_bound(scene: &mut Scene<'_>) -> Outcome {
    let program = scene.path("program");
    fs::copy("/bin/busybox", &program)?;
    let counts = scene.file("counts", &"\0".repeat(24));
    let mut process = scene.process()?;
    process.works(&step!("hold", "counts", counts, "rw"), "before binding")?;
    let read = || -> Result<[i64; 3]> {
        let bytes = fs::read(&counts)?;
        let mut numbers = bytes.chunks_exact(8).map(|number| number.try_into().map_or(0, i64::from_ne_bytes));
        Ok([(); 3].map(|()| numbers.next().unwrap_or(0)))
    };
    let exec = step!("race-exec", (2 * SECONDS).to_string(), program, "counts");
    process.send(&exec)?;
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let mut bound = 0;
    while Instant::now() < end {
        // One that began while bound, and one that began after unbinding.
        scene.bind("exec:\n  - {allow: [\"/bin/busybox\"]}\nfiles:\n  - {allow: [write], paths: [\"$W/counts\"]}\n")?;
        let last = read()?[0];
        while read()?[2] <= last + 1 {
            ensure!(read()?[1] <= last, "a program was executed while bound, as try {} of {last}", read()?[1]);
            std::thread::yield_now();
        }
        ensure!(read()?[1] <= last, "a program was executed while bound, as try {} of {last}", read()?[1]);
        scene.unbind()?;
        bound += 1;
        let last = read()?[0];
        while read()?[1] <= last {
            std::thread::yield_now();
        }
    }
    process.answer(&exec)?;
    println!("{bound} times bound; {} tries", read()?[0]);
    ensure!(bound > 10, "nothing was raced");
    Ok(())
}

/// The kernel does not use the id of a cgroup again: it is the number of its kernfs node, 32 bits that go round, below 32
/// that count the rounds (`__kernfs_new_node` in `fs/kernfs/dir.c`).
fn ten_thousand_cgroups_made_and_removed_leave_no_binding(scene: &mut Scene<'_>) -> Outcome {
    let entries = || metric("agent_monitor_map_entries", &["BINDINGS"]);
    let lost = || metric("agent_monitor_events_lost_total", &[]);
    scene.bind("files:\n  - {allow: [read], paths: [\"/none\"]}\n")?;
    let (before, lost_before) = (entries()?, lost()?);
    let directory = scene.cgroup.directory();
    let mut last = 0;
    let start = Instant::now();
    for number in 0..10_000 {
        let child = directory.join(format!("c{number}"));
        fs::create_dir(&child).context("make a cgroup")?;
        let id = cgroup::id(&child)?;
        ensure!(id > last, "the id {id} came after {last}");
        last = id;
        fs::remove_dir(&child).context("remove a cgroup")?;
    }
    println!("10000 cgroups in {:.1} s", start.elapsed().as_secs_f32());
    let file = scene.file("file", "f");
    let mut process = scene.process()?;
    process.expect(&step!("open", file, "r"), EACCES, "bound")?;
    scene.record(&json!({"operation": "file_open", "object": {"path": file}}))?;
    let deadline = Instant::now() + crate::harness::wait::limit();
    // The kernel frees what is left of a cgroup later.
    while entries()? > before {
        ensure!(Instant::now() < deadline, "{before} bindings became {}", entries()?);
    }
    ensure!(lost()? == lost_before, "{} events were lost", lost()? - lost_before);
    scene.unbind_after(1)
}
