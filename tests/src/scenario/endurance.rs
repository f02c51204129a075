//! Much of everything: each takes minutes and prints its figures.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::applied::Applied;
use super::races::{either, mixed_nothing};
use super::soak::gauge::megabytes;
use crate::harness::cgroup::{self, Cgroup};
use crate::harness::control::{ask, metric};
use crate::harness::daemon::{PLACE, uninstall};
use crate::harness::wait::limit;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Endurance:
    a_policy_replaced_ten_thousand_times_mixes_nothing,
    a_policy_of_a_thousand_agents_is_replaced_in_one_step,
    a_million_denials_are_accounted_for_to_the_last,
    ten_thousand_agents_take_little_memory,
];

/// What is quick, and shown with all others.
pub const QUICK: &[Scenario] = scenarios![Node:
    an_idle_daemon_takes_little_memory,
];

/// The same, where the programs are loaded for it.
pub const LOADING: &[Scenario] = scenarios![Anew:
    a_daemon_that_has_just_loaded_the_programs_takes_little_memory,
];

/// Megabytes that a daemon may take with nothing to do, and with ten thousand agents that do nothing.
const MOST: [f64; 2] = [20.0, 64.0];

/// Has a daemon that knows no policies but those that are applied, so that it reads no others at each change.
fn with_no_other_policies(scene: &mut Scene<'_>) -> Outcome {
    let place = Path::new(PLACE).join("endurance");
    fs::create_dir_all(place.join("policies"))?;
    let settings = place.join("config.toml");
    fs::write(&settings, format!("policies_dir = {:?}\n", place.join("policies")))?;
    ensure!(scene.daemon.end()?.success(), "the daemon did not end well");
    scene.daemon.start_again(&["--config", &settings.to_string_lossy()])
}

/// Puts a policy in force in the place of the one of its name.
fn replace(applied: &Applied, text: &str) -> Outcome {
    let (status, answer) = applied.put(text)?;
    ensure!(status == 200 && answer["change"] == "replaced", "{status}: {answer}");
    Ok(())
}

fn a_policy_replaced_ten_thousand_times_mixes_nothing(scene: &mut Scene<'_>) -> Outcome {
    const TIMES: usize = 10_000;
    let name = "scenario-flips";
    with_no_other_policies(scene)?;
    let [one, two, never, always] = ["one", "two", "never", "always"].map(|name| scene.file(name, "f"));
    let texts = [&two, &one].map(|file| policy::document(name, &either(file, &always), Path::new("/")));
    let applied = Applied(name);
    applied.put(&texts[1])?;
    let mut processes = [scene.process()?, scene.process()?];
    scene.bind_named(name, json!({}))?;
    let stop = scene.path("stop");
    let opens = step!("race-turn", stop, one, two, never, always);
    processes.iter_mut().try_for_each(|process| process.send(&opens))?;
    let start = Instant::now();
    for number in 0..TIMES {
        replace(&applied, &texts[number % 2]).with_context(|| format!("replacement {number}"))?;
    }
    let each = start.elapsed() / TIMES.try_into()?;
    fs::write(&stop, "")?;
    println!("{TIMES} replacements, {each:?} each");
    for process in &mut processes {
        let (errno, _) = process.answer(&opens)?;
        ensure!(errno == 0, "the opens ended with errno {errno}");
        mixed_nothing(process, TIMES as u64)?;
    }
    Ok(())
}

/// How long it takes to replace a policy, from the request to its answer: the middle one of some.
fn replacing(applied: &Applied, texts: &[String; 2]) -> Result<Duration> {
    let mut times = Vec::new();
    for number in 0..11 {
        let start = Instant::now();
        replace(applied, &texts[number % 2])?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn a_policy_of_a_thousand_agents_is_replaced_in_one_step(scene: &mut Scene<'_>) -> Outcome {
    const AGENTS: usize = 1000;
    const MOST: Duration = Duration::from_millis(100);
    let name = "scenario-thousand";
    with_no_other_policies(scene)?;
    let [one, two, always] = ["one", "two", "always"].map(|name| scene.file(name, "f"));
    let texts = [&two, &one].map(|file| policy::document(name, &either(file, &always), Path::new("/")));
    let applied = Applied(name);
    applied.put(&texts[1])?;
    scene.bind_named(name, json!({}))?;
    // An odd number of replacements each time: after the first two is allowed, after the next one.
    let alone = replacing(&applied, &texts)?;
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let cgroup = Cgroup::make(&format!("{}-{number}", scene.cgroup.path))?;
        ask("POST", "/v1/agents", &json!({"policy": name, "cgroup": cgroup.path}))?;
        agents.push(cgroup);
    }
    let [first, second] = texts;
    let many = replacing(&applied, &[second, first])?;
    println!("replaced in {alone:?} with one agent, in {many:?} with {}", AGENTS + 1);
    let mut process = Process::start()?;
    for agent in &agents {
        cgroup::enter(&agent.directory(), process.pid())?;
        process.works(&step!("open", one, "r"), &agent.path)?;
        process.expect(&step!("open", two, "r"), EACCES, &agent.path)?;
    }
    drop(process);
    drop(agents);
    let deadline = Instant::now() + 4 * limit();
    let left = || Ok::<_, anyhow::Error>(ask("GET", "/v1/agents", &Value::Null)?.as_array().map_or(0, Vec::len));
    while left()? > AGENTS / 2 {
        ensure!(Instant::now() < deadline, "{} agents are left", left()?);
    }
    ensure!(many < MOST, "it took {many:?}");
    Ok(())
}

/// One that has done nothing yet but to take over.
fn an_idle_daemon_takes_little_memory(scene: &mut Scene<'_>) -> Outcome {
    let idle = idle(scene)?;
    ensure!(idle < MOST[0], "it takes {idle:.1} MB");
    Ok(())
}

fn a_daemon_that_has_just_loaded_the_programs_takes_little_memory(scene: &mut Scene<'_>) -> Outcome {
    ensure!(scene.daemon.end()?.success(), "the daemon did not end well");
    ensure!(uninstall()?.contains("removed"), "nothing was pinned");
    scene.daemon.start_again(&[])?;
    let loaded = resident(scene.daemon.pid())?;
    ensure!(loaded < MOST[0], "it takes {loaded:.1} MB");
    Ok(())
}

fn idle(scene: &mut Scene<'_>) -> Result<f64> {
    ensure!(scene.daemon.end()?.success(), "the daemon did not end well");
    scene.daemon.start_again(&[])?;
    resident(scene.daemon.pid())
}

/// The daemon's own memory, with nothing to do and with many agents that do nothing.
fn ten_thousand_agents_take_little_memory(scene: &mut Scene<'_>) -> Outcome {
    const AGENTS: usize = 10_000;
    let agents = || metric("agent_monitor_agents", &[]);
    let idle = idle(scene)?;
    let before = agents()?;
    let start = Instant::now();
    let mut made = Vec::new();
    for number in 0..AGENTS {
        made.push(Cgroup::make(&format!("/agents.slice/scenario-many-{number}"))?);
    }
    let deadline = Instant::now() + 4 * limit();
    while agents()? < before + AGENTS as u64 {
        ensure!(Instant::now() < deadline, "{before} agents became {}", agents()?);
    }
    let many = resident(scene.daemon.pid())?;
    println!("{idle:.1} MB idle, {many:.1} MB with {AGENTS} more, made in {:.1} s", start.elapsed().as_secs_f32());
    drop(made);
    while agents()? > before {
        ensure!(Instant::now() < deadline + 4 * limit(), "{before} agents are {} still", agents()?);
    }
    ensure!(idle < MOST[0] && many < MOST[1], "{idle:.1} and {many:.1} MB are too much");
    Ok(())
}

/// Memory that a process has of its own and shares, in megabytes.
fn resident(pid: u32) -> Result<f64> {
    megabytes(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:")
}

fn a_million_denials_are_accounted_for_to_the_last(scene: &mut Scene<'_>) -> Outcome {
    const AGENTS: usize = 4;
    const ROUNDS: u64 = 10;
    const TRIES: u64 = 25_000;
    const NAMES: &str = "1000";
    let needle = scene.file("needle", "n");
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let cgroup = Cgroup::make(&format!("{}/{number}", scene.cgroup.path))?;
        let text =
            policy::document("scenario-million", "files:\n  - {allow: [read], paths: [\"/none\"]}\n", Path::new("/"));
        let documents = json!([{"name": "", "path": "million.yaml", "text": text}]);
        let agent = ask("POST", "/v1/agents", &json!({"documents": documents, "cgroup": cgroup.path}))?;
        let id = agent["id"].as_str().context("an agent has an id")?.to_owned();
        let process = Process::start_in(&cgroup.directory())?;
        let flood = step!("flood", scene.path(&format!("noise{number}-")), TRIES.to_string(), NAMES);
        agents.push((cgroup, id, process, flood));
    }
    let mut other = Process::start_in(&agents[1].0.directory())?;
    let start = Instant::now();
    for round in 0..ROUNDS {
        // Nobody reads while it happens.
        scene.daemon.freeze();
        for (_, _, process, flood) in &mut agents {
            process.send(flood)?;
        }
        if round == ROUNDS / 2 {
            other.expect(&step!("open", needle, "r"), EACCES, "in the flood")?;
        }
        for (_, id, process, flood) in &mut agents {
            let (errno, denied) = process.answer(flood)?;
            ensure!(errno == 0 && denied.cast_unsigned() == TRIES, "{denied} of {TRIES} were denied in {id}");
        }
        scene.daemon.thaw();
        // It reads some of it before the next round.
        ask("GET", "/v1/status", &Value::Null)?;
    }
    let seconds = start.elapsed().as_secs_f32();
    let (mut total, mut all) = (0, json!({"written": 0, "folded": 0, "lost": 0}));
    for (number, (_, id, _, _)) in agents.iter().enumerate() {
        let word = format!("\"id\":\"{id}\"");
        let denials = ROUNDS * TRIES + u64::from(number == 1);
        if number == 1 {
            let found = json!({"operation": "file_open", "object": {"path": needle}, "count": 1});
            scene.records.wait(scene.start, &word, &found)?;
        }
        let counts = ask("DELETE", &format!("/v1/agents/{id}"), &Value::Null)?["counts"].clone();
        scene.records.wait(scene.start, &word, &json!({"type": "agent", "action": "unbound"}))?;
        // Records of losses name the agent by its id alone.
        scene.records.account(scene.start, &format!("\"{id}\""), &counts, denials)?;
        total += denials;
        for (name, sum) in all.as_object_mut().into_iter().flatten() {
            *sum = json!(sum.as_u64().unwrap_or(0) + counts[name].as_u64().unwrap_or(0));
        }
    }
    println!("{total} denials in {seconds:.0} s: {all}");
    Ok(())
}
