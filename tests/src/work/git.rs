//! Git: in a repository that is there already, and with repositories of the agent's own.

use anyhow::ensure;

use super::job::{self, Job};
use crate::harness::{Outcome, Scenario};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Work:
    a_repository_is_committed_to_branched_and_rebased,
    a_submodule_and_a_worktree_are_committed_to,
    a_repository_is_made_and_cloned,
];

/// Git makes a hard link of each object, which is read-only, and the kernel (`may_linkat`, `fs.protected_hardlinks`) asks
/// for this before it sees that the file is the user's own. Only root's attempts get as far as the programs.
const LINK: (&str, &str) = ("CAP_DAC_OVERRIDE", "root's capability is tried first; owning the file is enough");

const IDENTITY: &str = "git config --global user.name w && git config --global user.email w@localhost";

fn a_repository_is_committed_to_branched_and_rebased() -> Outcome {
    let job = Job::new("coding-agent", &["git"])?
        .before(&format!("{IDENTITY}; git init -q -b main . && echo one >a && git add a && git commit -q -m one"))?;
    let job = job.denied("capability", LINK.0, "no_rule", LINK.1).denied(
        "file",
        "/workspace/.git/config",
        "deny_rule",
        "`git branch -D` writes the configuration anew, which had nothing about the branch",
    );
    let said = job.run(
        "git status --short
        git switch -q -c topic && echo two >b && git add b && git commit -q -m two
        git switch -q main && echo three >c && git add . && git commit -q -m three
        git switch -q topic && git rebase -q main && git stash list && git diff --stat HEAD~1
        git mv b d && git commit -q --amend -m four && git tag v1 && git branch -D main && git gc -q
        git log --format=%s",
    )?;
    ensure!(said.ends_with("four\nthree\none\n"), "it printed {said:?}");
    ensure!(job::outside("git log --format=%s topic; git fsck")? == "four\nthree\none\n", "the commits are not there");
    Ok(())
}

fn a_submodule_and_a_worktree_are_committed_to() -> Outcome {
    let job = Job::new("coding-agent", &["git"])?.before(&format!(
        "{IDENTITY}; git init -q -b main lib && git -C lib commit -q --allow-empty -m lib
        git init -q -b main main && cd main && git -c protocol.file.allow=always submodule --quiet add ../lib deps/lib
        git commit -q -m one && git worktree add -q ../side -b side"
    ))?;
    let job = job.denied("capability", LINK.0, "no_rule", LINK.1).denied(
        "file",
        ".git/modules/deps/lib/config",
        "deny_rule",
        "`git submodule update` writes the configuration anew with what it had; a checkout in the submodule does without",
    );
    job.run(
        "cd main && git status --short && git worktree list && git submodule status
        cd deps/lib && git switch -q -c topic && echo two >b && git add b && git commit -q -m two && git gc -q
        cd ../.. && git add deps/lib && git commit -q -m bump && git diff --submodule HEAD~1
        ! git submodule update 2>/dev/null
        git -C deps/lib checkout -q \"$(git rev-parse HEAD~1:deps/lib)\" && git -C deps/lib switch -q topic
        cd ../side && echo three >c && git add c && git commit -q -m three && git rebase -q main && git gc -q",
    )?;
    ensure!(job::outside("git -C main log --format=%s side")? == "three\nbump\none\n", "the commits are not there");
    ensure!(job::outside("git -C main/deps/lib log -1 --format=%s")? == "two\n", "the submodule's commit is not there");
    Ok(())
}

fn a_repository_is_made_and_cloned() -> Outcome {
    let job = Job::new("build", &["git"])?.before(&format!(
        "{IDENTITY}; git init -q -b main origin && cd origin && echo one >a && git add a && git commit -q -m one"
    ))?;
    job.denied("capability", LINK.0, "no_rule", LINK.1).run(
        "git init -q fresh && git -C fresh commit -q --allow-empty -m first
        git clone -q origin copy && cd copy && git config user.name agent
        git checkout -q -b topic --track origin/main && echo two >b && git add b && git commit -q -m two
        git push -q -u origin topic && git pull -q",
    )?;
    ensure!(job::outside("git -C origin log --format=%s topic")? == "two\none\n", "the pushed commits are not there");
    Ok(())
}
