//! One piece of work: what must be there before, the script that the agent runs, and what may be denied meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::records::short;
use crate::harness::skip;

/// The shipped policies, and their default workspace.
const POLICIES: &str = "/etc/agent-monitor/policies";
const WORKSPACE: &str = "/workspace";
/// A home without anything of the machine's user.
pub const HOME: &str = "/home/work";
/// The distribution's own programs, which the policies are for.
const PATH: &str = "/usr/bin:/bin";

/// A piece of work in an empty workspace.
pub struct Job {
    policy: &'static str,
    variables: Vec<String>,
    environment: Vec<(&'static str, String)>,
    expected: Vec<Denial>,
}

/// A denial that is right.
struct Denial {
    class: &'static str,
    /// How the path, name or address ends, or all of it.
    object: &'static str,
    reason: &'static str,
}

impl Job {
    /// Work under this policy with these programs; skipped where one is missing.
    pub fn new(policy: &'static str, programs: &[&str]) -> Result<Self> {
        let missing: Vec<&str> = programs.iter().filter(|program| find(program).is_none()).copied().collect();
        if !missing.is_empty() {
            return Err(skip(&format!("{} not installed in {PATH}", missing.join(", "))));
        }
        for directory in [WORKSPACE, HOME] {
            if Path::new(directory).exists() {
                fs::remove_dir_all(directory).with_context(|| format!("empty {directory}"))?;
            }
            fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
        }
        let has_home = matches!(policy, "coding-agent" | "build");
        let variables = if has_home { vec![format!("HOME={HOME}")] } else { Vec::new() };
        Ok(Self { policy, variables, environment: Vec::new(), expected: Vec::new() })
    }

    /// A file of the workspace, made before.
    pub fn file(self, name: &str, text: &str) -> Result<Self> {
        let path = path(name);
        fs::create_dir_all(path.parent().context("a file of the workspace has a directory")?)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(self)
    }

    /// Done before in the workspace, outside of the agent.
    pub fn before(self, script: &str) -> Result<Self> {
        let output = shell(script).output().context("start sh")?;
        ensure!(output.status.success(), "before the agent: {}", said(&output));
        Ok(self)
    }

    /// A variable of the policy.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}"));
        self
    }

    /// A variable of the agent's environment.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// An operation that is denied, and that the work goes on without. It has to happen. `why` is for who reads this.
    pub fn denied(mut self, class: &'static str, object: &'static str, reason: &'static str, why: &str) -> Self {
        assert!(!why.is_empty(), "a denial is listed with its reason");
        self.expected.push(Denial { class, object, reason });
        self
    }

    /// Runs a shell's script as the agent; what it printed.
    pub fn run(self, script: &str) -> Result<String> {
        self.execute(&["/bin/sh", "-euc", script])
    }

    /// Runs a command as the agent; what it printed.
    pub fn execute(self, arguments: &[&str]) -> Result<String> {
        let records = Path::new("/tmp/work-records.jsonl");
        if records.exists() {
            fs::remove_file(records)?;
        }
        let mut command = clean("/usr/local/bin/agent-monitor");
        command.args(["run", "--policy"]).arg(format!("{POLICIES}/{}.yaml", self.policy)).arg("--record").arg(records);
        for variable in &self.variables {
            command.args(["--var", variable]);
        }
        command.arg("--").args(arguments).envs(self.environment.iter().cloned());
        self.end(&command.output().context("start agent-monitor run")?, records)
    }

    fn end(&self, output: &Output, records: &Path) -> Result<String> {
        ensure!(output.status.success(), "the agent's script {}", said(output));
        let text = fs::read_to_string(records).with_context(|| format!("read {}", records.display()))?;
        let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            if record["type"] == "loss" {
                wrong.push(short(&record));
            }
            if record["type"] != "operation" || record["verdict"] == "allow" {
                continue;
            }
            match self.expected.iter().position(|denial| denial.is(&record)) {
                Some(number) => drop(seen.insert(number)),
                None => wrong.push(short(&record)),
            }
        }
        wrong.dedup();
        ensure!(wrong.is_empty(), "{} denials that are not listed:\n    {}", wrong.len(), wrong.join("\n    "));
        let stale: Vec<&str> =
            self.expected.iter().enumerate().filter(|(n, _)| !seen.contains(n)).map(|(_, d)| d.object).collect();
        ensure!(stale.is_empty(), "listed as denied, and not tried: {}", stale.join(", "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Denial {
    fn is(&self, record: &Value) -> bool {
        let object = &record["object"];
        let words = ["new_path", "path", "name", "unix", "address", "family"];
        let found = words.iter().find_map(|word| object[*word].as_str()).unwrap_or_default();
        record["class"] == self.class && record["reason"] == self.reason && found.ends_with(self.object)
    }
}

/// A path of the workspace.
pub fn path(name: &str) -> PathBuf {
    Path::new(WORKSPACE).join(name)
}

/// What a program of the workspace prints, run outside of the agent.
pub fn outside(script: &str) -> Result<String> {
    let output = shell(script).output().context("start sh")?;
    ensure!(output.status.success(), "outside of the agent: {}", said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program with the job's directory and environment, and nothing else of ours.
pub fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs([("PATH", PATH), ("HOME", HOME), ("LANG", "C.UTF-8"), ("TERM", "dumb")]);
    command.current_dir(WORKSPACE).stdin(Stdio::null());
    command
}

fn shell(script: &str) -> Command {
    let mut command = clean("/bin/sh");
    command.args(["-euc", script]);
    command
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|directory| Path::new(directory).join(program)).find(|path| path.exists())
}

fn said(output: &Output) -> String {
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(|line| format!("\n    {line}")).collect::<String>();
    format!("ended with {}:{}{}", output.status, text(&output.stdout), text(&output.stderr))
}
