//! Images of policies in the kernel: one for each policy that there is, and none that is missed while it is exchanged.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::applied::Applied;
use super::survival::{Hammer, PINS, POLICY, unbind_after};
use crate::harness::control::ask;
use crate::harness::process::Step;
use crate::harness::wait::limit;
use crate::harness::{Outcome, Process, Scenario, Scene, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    policies_that_come_and_go_leave_no_image_behind,
    an_image_that_a_killed_daemon_left_is_given_back_by_the_next,
    a_policy_whose_image_changes_its_size_is_in_force_all_the_while,
];

/// How many images the kernel has.
pub fn count(outsider: &mut Process) -> Result<i64> {
    outsider.works(&step!("count-maps", "image"), "outside of all agents")
}

/// Does a step until it ends so: the kernel frees a map some moments after it is gone.
fn until(outsider: &mut Process, step: &Step, well: impl Fn((i32, i64)) -> bool) -> Outcome {
    let deadline = Instant::now() + limit();
    loop {
        let ended = outsider.run(step)?;
        if well(ended) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "errno and value are still {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn policies_that_come_and_go_leave_no_image_behind(scene: &mut Scene<'_>) -> Outcome {
    const TIMES: usize = 100;
    let mut outsider = Process::start()?;
    let before = count(&mut outsider)?;
    for number in 0..TIMES {
        scene.bind(&format!("files:\n  - {{allow: [read], paths: [\"/none{number}\"]}}\n"))?;
        scene.unbind()?;
    }
    until(&mut outsider, &step!("count-maps", "image"), |ended| ended.0 == 0 && ended.1 <= before)
        .with_context(|| format!("{before} images were there before {TIMES} policies came and went"))
}

/// Where this map is pinned by the build that guards the node.
fn pin(map: &str) -> Result<PathBuf> {
    for build in fs::read_dir(PINS)? {
        let build = build?.path();
        if fs::read_dir(build.join("links")).is_ok_and(|mut links| links.next().is_some()) {
            return Ok(build.join("maps").join(map));
        }
    }
    anyhow::bail!("no build guards the node")
}

/// The moment in which a daemon leaves one can't be hit from outside. So one is put where no policy is.
fn an_image_that_a_killed_daemon_left_is_given_back_by_the_next(scene: &mut Scene<'_>) -> Outcome {
    /// The slot of the built-in policy, and one that is not reached by as many policies as there are here.
    const SLOTS: [&str; 2] = ["0", "4000"];
    let mut outsider = Process::start()?;
    let map = pin("IMAGES_SMALL")?;
    let [used, left] = SLOTS.map(|slot| step!("inner-map", map, slot));
    outsider.expect(&left, libc::ENOENT, "before it is left")?;
    scene.daemon.kill();
    outsider.works(&step!("copy-inner-map", map, SLOTS[0], SLOTS[1]), "without a daemon")?;
    outsider.works(&left, "once it is left")?;
    scene.daemon.start_again(&[])?;
    until(&mut outsider, &left, |ended| ended.0 == libc::ENOENT)?;
    outsider.works(&used, "with the next daemon").map(drop)
}

/// The images lie in maps of different sizes; the number that says in which one changes between two reads of a program.
fn a_policy_whose_image_changes_its_size_is_in_force_all_the_while(scene: &mut Scene<'_>) -> Outcome {
    const TIMES: usize = 20;
    /// Bytes of the smallest size.
    const SMALL: u64 = 64 << 10;
    let word = "scenario-sizes";
    let applied = Applied(word);
    let mut outsider = Process::start()?;
    // Paths that have nothing in common.
    let path = |number: u128| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let more: String = (1..=200).map(|number| format!(", \"/none/{:032x}\"", path(number))).collect();
    let allowed = "\"$W/allowed\"";
    let large = POLICY.replacen(allowed, &(allowed.to_owned() + &more), 1);
    let texts = [POLICY, &large].map(|spec| policy::document(word, spec, &scene.workspace));
    let process = scene.process()?;
    let put = |number: usize| -> Outcome {
        let (status, answer) = applied.put(&texts[number % 2])?;
        ensure!(status == if number == 0 { 201 } else { 200 }, "{status}: {answer}");
        let shown = ask("GET", &format!("/v1/policies/{word}"), &Value::Null)?;
        let bytes = shown["image_bytes"].as_u64().context("an image has a size")?;
        ensure!((bytes > SMALL) == (number % 2 == 1), "document {number} has an image of {bytes} bytes");
        Ok(())
    };
    put(0)?;
    scene.bind_named(word, json!({}))?;
    let before = count(&mut outsider)?;
    let hammer = Hammer::start(scene, process)?;
    (1..=TIMES).try_for_each(put)?;
    let rounds = hammer.end()?;
    until(&mut outsider, &step!("count-maps", "image"), |ended| ended.0 == 0 && ended.1 <= before)
        .with_context(|| format!("{before} images were there before {TIMES} changes of the size"))?;
    unbind_after(scene, 2 * rounds)
}
