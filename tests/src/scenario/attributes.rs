//! Times, extended attributes and access lists (`inode_*` hooks).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::ensure;
use serde_json::json;

use crate::harness::control::is_attached;
use crate::harness::{Cycle, EACCES, Mount, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    times_and_attributes_are_set_only_by_a_rule,
    attributes_are_judged_by_every_name_that_the_agent_can_reach,
    an_attribute_that_a_rule_denies_by_one_name_is_set_by_none,
    a_name_on_a_mount_for_reading_lets_no_attribute_be_set,
    an_attribute_of_a_file_without_a_name_needs_its_word,
];

fn times_and_attributes_are_set_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (file, free) = (scene.file("file", "f"), scene.file("free", "f"));
    let spec = r#"
files:
  - {allow: [read, set-attributes], paths: ["$W/**"]}
  - {deny: [set-attributes], paths: ["$W/file"]}
capabilities:
  - {allow: [CAP_SYS_ADMIN, CAP_FOWNER]}
"#;
    let denied = |hook: &str| record(hook, &["set-attributes"], json!({"path": file}), "deny_rule", Some("files[1]"));
    // Before 6.2 an access list is an extended attribute like any other.
    let lists = is_attached("inode_set_acl")?;
    let (set, remove) =
        if lists { ("inode_set_acl", "inode_remove_acl") } else { ("inode_setxattr", "inode_removexattr") };
    let there = || {
        let (one, two) = (file.clone(), free.clone());
        move || {
            for (file, step) in [(&one, "setxattr"), (&two, "setxattr"), (&one, "setacl"), (&two, "setacl")] {
                let done = Command::new("/proc/self/exe").args(["once", step]).arg(file).output();
                assert!(done.is_ok_and(|done| done.status.success()), "{step} of {} failed", file.display());
            }
        }
    };
    Cycle::new()
        .allowed(step!("hold", "file", file, "r"))
        .denied(step!("utimes", file), denied("inode_setattr"))
        .denied(step!("futimes", "file"), denied("inode_setattr"))
        .denied(step!("setxattr", file), denied("inode_setxattr"))
        .denied(step!("fsetxattr", "file"), denied("inode_setxattr"))
        .denied_after(there(), step!("removexattr", file), denied("inode_removexattr"))
        .denied(step!("setacl", file), denied(set))
        .denied_after(there(), step!("removeacl", file), denied(remove))
        .allowed(step!("utimes", free))
        .allowed(step!("setxattr", free))
        .allowed_after(there(), step!("removexattr", free))
        .allowed(step!("setacl", free))
        .allowed_after(there(), step!("removeacl", free))
        .run(scene, spec)?;
    // And the state.
    let before = fs::metadata(&file)?;
    scene.bind(spec)?;
    scene.process()?.expect(&step!("utimes", file), EACCES, "bound")?;
    let after = fs::metadata(&file)?;
    ensure!(
        (before.mtime_nsec(), before.atime_nsec(), before.ctime_nsec())
            == (after.mtime_nsec(), after.atime_nsec(), after.ctime_nsec()),
        "the times were changed"
    );
    Ok(())
}

/// The hooks give no mount: a file that is shown by two may be changed by either name, because its attributes are the same.
fn attributes_are_judged_by_every_name_that_the_agent_can_reach(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("real/file", "f");
    let other = scene.path("other");
    fs::create_dir(&other)?;
    let _mount = Mount::bind(&scene.path("real"), &other)?;
    let shown = other.join("file");
    scene.bind("files:\n  - {allow: [set-attributes], paths: [\"$W/other/**\"]}\n")?;
    let mut process = scene.process()?;
    for path in [&file, &shown] {
        process.works(&step!("utimes", path), "bound, by a name of the file that a rule allows")?;
    }
    scene.unbind_after(0)?;
    scene.bind("files:\n  - {allow: [read], paths: [\"/**\"]}\n")?;
    for path in [&file, &shown] {
        scene.start = scene.records.lines.len();
        process.expect(&step!("utimes", path), EACCES, "bound")?;
        let record = scene.record(&json!({"operation": "inode_setattr", "reason": "no_rule"}))?;
        let told = record["object"]["path"].as_str().unwrap_or_default().to_owned();
        ensure!([&file, &shown].iter().any(|path| path.display().to_string() == told), "the record tells of {told}");
    }
    scene.unbind_after(2)
}

fn an_attribute_that_a_rule_denies_by_one_name_is_set_by_none(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("real/file", "f");
    let other = scene.path("other");
    fs::create_dir(&other)?;
    let _mount = Mount::bind(&scene.path("real"), &other)?;
    let shown = other.join("file");
    // Whichever of the mounts comes first.
    for (allowed, denied, name) in [("other", "real", &file), ("real", "other", &shown)] {
        let spec = format!(
            "files:\n  - {{allow: [set-attributes], paths: [\"$W/{allowed}/**\"]}}\n  \
             - {{deny: [set-attributes], paths: [\"$W/{denied}/**\"]}}\n"
        );
        let told = record("inode_setattr", &["set-attributes"], json!({"path": name}), "deny_rule", Some("files[1]"));
        Cycle::new()
            .denied(step!("utimes", file), told.clone())
            .denied(step!("utimes", shown), told)
            .run(scene, &spec)?;
    }
    Ok(())
}

/// A rule for a name by which nobody could change the file is no permission to change it by another.
fn a_name_on_a_mount_for_reading_lets_no_attribute_be_set(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("real/file", "f");
    let other = scene.path("other");
    fs::create_dir(&other)?;
    let _mount = Mount::bind(&scene.path("real"), &other)?;
    let read_only = [OsStr::new("-o"), OsStr::new("remount,bind,ro"), other.as_os_str()];
    let done = Command::new("mount").args(read_only).status()?;
    ensure!(done.success(), "mount {read_only:?}: {done}");
    let denied = record("inode_setattr", &["set-attributes"], json!({"path": file}), "no_rule", None);
    Cycle::new()
        .denied(step!("utimes", file), denied)
        .run(scene, "files:\n  - {allow: [set-attributes], paths: [\"$W/other/**\"]}\n")
}

fn an_attribute_of_a_file_without_a_name_needs_its_word(scene: &mut Scene<'_>) -> Outcome {
    let workspace = scene.workspace.clone();
    let spec = "files:\n  - {allow: [read, write, create], paths: [\"$W\", \"$W/**\", \"anon:deleted\"]}\n";
    let denied = record("inode_setattr", &["set-attributes"], json!({"path": "anon:deleted"}), "no_rule", None);
    Cycle::new()
        .allowed(step!("hold", "new", workspace, "rw,tmpfile"))
        .denied(step!("futimes", "new"), denied)
        .run(scene, spec)
}
