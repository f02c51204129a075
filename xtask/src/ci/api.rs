//! The control socket under schemathesis: requests made from its own description, and against it. It speaks with a daemon
//! without programs (`agent-monitor/src/control/fake.rs`), so it needs no kernel that accepts them; what serves, reads and
//! refuses is the real thing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Verdict;
use crate::kernel::Spec;
use crate::workspace::Workspace;
use crate::{build, process, setup};

/// The test that serves, in the unit tests of agent-monitor.
const FAKE: &str = "control::fake::serves_until_standard_input_ends";
/// What no answer may be: a failure of the daemon, a status, a type or a body that the description does not have, one of 200
/// to something that the description rules out.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance,unsupported_method,negative_data_rejection";
/// Seconds after which a request has hung.
const HUNG: &str = "10";

/// A few requests of each kind, always the same.
pub fn check(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    run(workspace, &["--max-examples", "20", "--generation-deterministic"])
}

/// Other requests each time, for five minutes.
pub fn check_long(workspace: &Workspace, _: &[Spec]) -> Result<Verdict> {
    run(workspace, &["--max-examples", "100000", "--max-time", "300"])
}

fn run(workspace: &Workspace, options: &[&str]) -> Result<Verdict> {
    let program = setup::ensure_schemathesis(workspace).context("set up schemathesis")?;
    let mut fake = build::cargo(workspace);
    fake.args(["test", "--quiet", "--package", "agent-monitor", "--bin", "agent-monitor", "--"]);
    fake.args(["--ignored", "--exact", "--nocapture", FAKE]);
    let mut fake = fake.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the fake daemon")?;
    let tested = address(&mut fake).and_then(|address| test(&program, &address, options));
    // It serves until its standard input ends, and fails if something in it has panicked.
    drop(fake.stdin.take());
    let ended = fake.wait().context("wait for the fake daemon")?;
    tested?;
    ensure!(ended.success(), "the fake daemon ended with {ended}");
    Ok(Verdict::Passed)
}

/// Where the fake says that it is.
fn address(fake: &mut Child) -> Result<String> {
    let mut lines = BufReader::new(fake.stdout.take().context("its output is ours")?).lines();
    let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let address = line.strip_prefix("fake daemon at ");
        address.map(str::to_owned)
    });
    let Some(found) = found else { bail!("the fake daemon did not start; run `cargo test -p agent-monitor`") };
    // Read to its end, so that what it prints later does not stop it.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("{line}")));
    Ok(found)
}

fn test(program: &Path, address: &str, options: &[&str]) -> Result<()> {
    // It leaves files where it runs.
    let place = tempfile::tempdir().context("make a directory for schemathesis")?;
    let mut schemathesis = Command::new(program);
    schemathesis.current_dir(place.path()).args(["run", &format!("http://{address}/openapi.json"), "--no-color"]);
    schemathesis.args(["--request-timeout", HUNG, "--warnings", "off", "--checks", CHECKS]).args(options);
    process::run(&mut schemathesis, "test the control socket by its description")
}
