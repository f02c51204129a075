//! Deciding in the kernel and deciding on the host are the same: random policies, random operations, and the errno of
//! each against `agent-monitor policy test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::harness::process::Step;
use crate::harness::{EACCES, Outcome, Process, Scenario, Scene, policy};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node: the_kernel_decides_like_the_host];

const POLICIES: usize = 6;
const OPERATIONS: usize = 400;

/// Numbers that follow from a seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn some(&mut self, of: &[&'static str]) -> String {
        let chosen: Vec<&str> = of.iter().copied().filter(|_| self.below(2) == 0).collect();
        if chosen.is_empty() { of[0].to_owned() } else { chosen.join(", ") }
    }
}

fn the_kernel_decides_like_the_host(scene: &mut Scene<'_>) -> Outcome {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().context("SEED is a number")?,
        Err(_) => {
            u64::from_str_radix(fs::read_to_string("/proc/sys/kernel/random/uuid")?.get(..8).unwrap_or("1"), 16)? | 1
        }
    };
    let mut random = Random(seed);
    for round in 0..POLICIES {
        one_policy(scene, &mut random).with_context(|| format!("SEED={seed}, policy {round}"))?;
    }
    eprintln!("the_kernel_decides_like_the_host: SEED={seed}");
    Ok(())
}

fn one_policy(scene: &mut Scene<'_>, random: &mut Random) -> Outcome {
    let spec = random_spec(random);
    let text = policy::document("scenario", &spec, &scene.workspace);
    let (policy_file, cases_file) = ("/run/scenarios/property.yaml", "/run/scenarios/property.cases.yaml");
    fs::write(policy_file, &text)?;
    let mut process = scene.process()?;
    scene.bind(&spec).with_context(|| text.clone())?;
    let mut cases = String::from("cases:\n");
    for _ in 0..OPERATIONS {
        if random.below(4) == 0 {
            cases.push_str(&network(&mut process, random)?);
        } else {
            cases.push_str(&file(&mut process, random, &scene.workspace)?);
        }
    }
    scene.unbind()?;
    fs::write(cases_file, &cases)?;
    let judged = Command::new("agent-monitor").args(["policy", "test", policy_file, cases_file]).output()?;
    let said = String::from_utf8_lossy(&judged.stdout);
    let complete = said.lines().last() == Some(&format!("{OPERATIONS} passed, 0 failed"));
    let first: Vec<&str> = said.lines().take(5).collect();
    ensure!(
        judged.status.success() && complete,
        "the host decides otherwise:\n{}\n{}\n{text}",
        first.join("\n"),
        String::from_utf8_lossy(&judged.stderr)
    );
    Ok(())
}

const DIRECTORIES: &[&str] = &["a", "b", "ab", "a/b", "b/a/b"];
const NAMES: &[&str] = &["x", "y", "xy", ".env"];
const ACCESSES: &[&str] = &["read", "write", "create", "delete", "rename", "link", "set-attributes"];

fn random_spec(random: &mut Random) -> String {
    let mut spec = String::from("files:\n  - {allow: [all], paths: [\"$W/**\"]}\n");
    for _ in 0..3 + random.below(6) {
        let kind = random.one(&["allow", "deny", "deny"]);
        let pattern = match random.below(6) {
            0 => format!("$W/{}/**", random.one(DIRECTORIES)),
            1 => format!("**/{}", random.one(NAMES)),
            2 => format!("$W/*/{}*", random.one(&["x", "y"])),
            3 => format!("$W/{{a,b/a}}/**/{}", random.one(NAMES)),
            4 => format!("$W/[ab]/?{}", random.one(&["", "?"])),
            _ => format!("$W/{}/{}", random.one(DIRECTORIES), random.one(NAMES)),
        };
        spec.push_str(&format!("  - {{{kind}: [{}], paths: [\"{pattern}\"]}}\n", random.some(ACCESSES)));
    }
    spec.push_str("network:\n  - {allow: [create], sockets: [inet, inet6]}\n");
    for _ in 0..1 + random.below(4) {
        let kind = random.one(&["allow", "allow", "deny"]);
        let addresses =
            random.one(&["127.0.0.0/8", "127.0.0.1", "127.0.0.2/31", "127.1.0.0/16", "0.0.0.0/0", "::1", "::/0"]);
        let ports = random.one(&["9", "\"9-11\"", "\"10-65535\""]);
        let protocols = random.one(&["udp", "tcp", "udp, tcp"]);
        spec.push_str(&format!(
            "  - {{{kind}: [{}], to: {{addresses: [\"{addresses}\"], ports: [{ports}], protocols: [{protocols}]}}}}\n",
            random.some(&["connect", "send"])
        ));
    }
    spec
}

fn random_path(random: &mut Random, root: &Path) -> PathBuf {
    root.join(random.one(DIRECTORIES)).join(random.one(NAMES))
}

/// Puts a file with a name there, or takes it away.
fn put(path: &Path, there: bool) -> Outcome {
    if there {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        return Ok(fs::write(path, "text")?);
    }
    let _ = fs::remove_file(path);
    Ok(())
}

fn file(process: &mut Process, random: &mut Random, root: &Path) -> anyhow::Result<String> {
    let (path, other) = (random_path(random, root), random_path(random, root));
    put(&path, true)?;
    put(&other, true)?;
    let mut new_object = None;
    let (step, operation): (Step, &str) = match random.below(11) {
        0 => (step!("open", path, "r"), "file:read"),
        1 => (step!("open", path, "w"), "file:write"),
        2 => (step!("open", path, "rw"), "file:read,write"),
        3 => (step!("unlink", path), "file:delete"),
        4 => (step!("truncate", path, "1"), "file:write"),
        5 => (step!("chmod", path, "384"), "file:set-attributes"),
        6 => {
            put(&path, false)?;
            (step!("open", path, "rw,creat,excl"), "file:read,write,create")
        }
        7 => {
            put(&path, false)?;
            (step!("mknod", path, "fifo"), "file:create")
        }
        kind if path == other => {
            let _ = kind;
            (step!("open", path, "r"), "file:read")
        }
        8 => {
            put(&other, false)?;
            new_object = Some(&other);
            (step!("link", path, other), "file:link")
        }
        9 => {
            put(&other, false)?;
            new_object = Some(&other);
            (step!("rename", path, other), "file:rename")
        }
        _ => {
            new_object = Some(&other);
            (step!("rename", path, other), "file:rename,delete")
        }
    };
    let verdict = verdict(process, &step)?;
    // A pipe that was made must not stand where a file is written next.
    put(&path, false)?;
    let new_object = new_object.map_or_else(String::new, |path| format!(", newObject: {}", path.display()));
    Ok(format!("  - {{operation: \"{operation}\", object: {}{new_object}, verdict: {verdict}}}\n", path.display()))
}

fn network(process: &mut Process, random: &mut Random) -> anyhow::Result<String> {
    let address = random.one(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.1.2.3", "[::1]"]);
    let port = random.one(&["8", "9", "10", "12"]);
    let (step, operation, protocol) = match random.below(3) {
        0 => (step!("connect", "udp", format!("{address}:{port}")), "connect", "udp"),
        1 => (step!("connect", "tcp", format!("{address}:{port}")), "connect", "tcp"),
        _ => (step!("sendto", "udp", format!("{address}:{port}")), "send", "udp"),
    };
    let verdict = verdict(process, &step)?;
    Ok(format!(
        "  - {{operation: \"network:{operation}\", object: \"{protocol}:{address}:{port}\", verdict: {verdict}}}\n"
    ))
}

fn verdict(process: &mut Process, step: &Step) -> anyhow::Result<&'static str> {
    match process.run(step)?.0 {
        // Nobody listens; that was found out after the verdict.
        0 | libc::ECONNREFUSED => Ok("allow"),
        EACCES => Ok("deny"),
        errno => bail!("{} gave errno {errno}", crate::harness::process::shown(step)),
    }
}
