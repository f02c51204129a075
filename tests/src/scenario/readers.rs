//! The control socket as users see it who are not root.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::survival::{POLICY, described};
use crate::harness::{Outcome, Scenario, Scene};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Node:
    members_of_the_control_group_read_and_change_nothing,
];

fn members_of_the_control_group_read_and_change_nothing(scene: &mut Scene<'_>) -> Outcome {
    const GROUP: u32 = 4000;
    let config = scene.file("group.toml", &format!("control_group = \"{GROUP}\"\n"));
    ensure!(scene.daemon.end()?.success(), "the daemon did not end well");
    scene.daemon.start_again(&["--config", &config.to_string_lossy()])?;
    let id = scene.bind(POLICY)?;
    let does = |group: u32, words: &[&str]| -> Result<(bool, String)> {
        let mut command = Command::new("agent-monitor");
        let output = command.args(words).uid(4001).gid(group).current_dir("/").output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (well, said) = does(GROUP, &["agents", "list"])?;
    ensure!(well && said.contains(&id), "a member is told: {said}");
    let (well, said) = does(GROUP, &["agents", "unbind", &id])?;
    ensure!(!well && said.contains("root"), "a member who unbinds is told: {said}");
    let (well, said) = does(GROUP + 1, &["agents", "list"])?;
    ensure!(!well && !said.contains(&id), "somebody else is told: {said}");
    described(&id).context("it is bound still")?;
    scene.unbind()?;
    ensure!(scene.daemon.end()?.success(), "the daemon did not end well");
    scene.daemon.start_again(&[])
}
