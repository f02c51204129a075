//! The step `deny`: licences, bans and sources of every dependency, and advisories where their database can be had.

use anyhow::Result;

use super::Verdict;
use crate::workspace::Workspace;
use crate::{build, process, setup};

/// Checks what `deny.toml` says.
pub fn check(workspace: &Workspace) -> Result<Verdict> {
    setup::ensure_tool(workspace, setup::CARGO_DENY)?;
    let deny = |arguments: &[&str]| {
        let mut cargo = build::cargo(workspace);
        cargo.arg("deny").args(arguments);
        cargo
    };
    process::run(
        &mut deny(&["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]),
        "check bans, licences and sources",
    )?;
    // The database is a repository on the internet, which a build machine may not reach. What is in the cache from an
    // earlier fetch is not asked: an old answer is none.
    if let Err(error) = process::output(&mut deny(&["--color", "never", "fetch", "db"]), "fetch the advisory database")
    {
        println!("{error:#}");
        return Ok(Verdict::PassedBut("advisories were not checked: their database cannot be fetched".to_owned()));
    }
    process::run(&mut deny(&["check", "--disable-fetch", "advisories"]), "check advisories")?;
    Ok(Verdict::Passed)
}
