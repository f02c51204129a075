//! One file under many names: what counts is the path that the kernel resolved.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde_json::json;

use crate::harness::{Cycle, Outcome, Process, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    an_alias_of_a_denied_file_is_denied,
    a_bind_mount_made_by_others_shows_its_own_path,
    a_path_of_four_thousand_bytes_is_decided,
    a_file_two_hundred_directories_deep_is_decided,
    a_longer_path_than_can_be_decided_is_denied,
    a_name_with_a_newline_or_invalid_utf8_is_escaped_and_forges_nothing,
];

const SPEC: &str = r#"
files:
  - {allow: [all], paths: ["/**"]}
  - {deny: [all], paths: ["$W/secret/**"], reason: secret}
"#;

fn an_alias_of_a_denied_file_is_denied(scene: &mut Scene<'_>) -> Outcome {
    let secret = scene.file("secret/key", "k");
    let (link, parent, open) = (scene.path("link"), scene.path("parent"), scene.path("open"));
    std::os::unix::fs::symlink(&secret, &link)?;
    std::os::unix::fs::symlink(scene.path("secret"), &parent)?;
    fs::create_dir(&open)?;
    let w = scene.workspace.display().to_string();
    let denied = || record("file_open", &["read"], json!({"path": secret}), "deny_rule", Some("files[1]"));
    let read = |path: String| step!("open", path, "r");
    Cycle::new()
        .allowed(step!("chdir", scene.workspace))
        .allowed(step!("hold", "directory", scene.path("secret"), "path,dir"))
        .denied(read(secret.display().to_string()), denied())
        .denied(read(link.display().to_string()), denied())
        .denied(read(format!("{w}/parent/key")), denied())
        .denied(read(format!("{w}/open/../secret/./key")), denied())
        .denied(read(format!("{w}//secret///key")), denied())
        .denied(read("secret/key".to_owned()), denied())
        .denied(read(format!("/proc/self/root{w}/secret/key")), denied())
        .denied(read("/proc/self/cwd/secret/key".to_owned()), denied())
        .denied(read("/proc/thread-self/cwd/secret/key".to_owned()), denied())
        .denied(read("/dev/fd/../cwd/secret/key".to_owned()), denied())
        .run(scene, SPEC)?;
    // Through a descriptor of the directory that was opened without a hook seeing it.
    scene.bind(SPEC)?;
    let mut process = scene.process()?;
    process.works(&step!("hold", "key", scene.path("secret/key"), "path"), "bound")?;
    scene.denied(&mut process, &step!("reopen", "key", "r"), libc::EACCES, &denied())
}

fn a_bind_mount_made_by_others_shows_its_own_path(scene: &mut Scene<'_>) -> Outcome {
    // Whoever may mount decides what lies where; the agent can't, and it sees the file under the path of the mount.
    let (secret, other) = (scene.file("secret/key", "k"), scene.path("other"));
    fs::create_dir(&other)?;
    scene.bind(SPEC)?;
    let mut process = scene.process()?;
    let step = step!("bind-mount", scene.path("secret"), other);
    process.expect(&step, libc::EACCES, "bound")?;
    scene.record(&record("sb_mount", &[], json!({"name": "mount"}), "no_rule", None))?;
    anyhow::ensure!(secret.exists() && fs::read_dir(&other)?.next().is_none(), "something was mounted");
    Process::start()?.works(&step, "as an outsider").map(drop)
}

fn a_path_of_four_thousand_bytes_is_decided(scene: &mut Scene<'_>) -> Outcome {
    let mut path = scene.workspace.display().to_string();
    while path.len() < 3_750 {
        path.push_str(&format!("/{}", "n".repeat(230)));
    }
    path.push_str(&format!("/{}", "n".repeat(4_000 - path.len() - 1)));
    deep(scene, &PathBuf::from(path))
}

fn a_file_two_hundred_directories_deep_is_decided(scene: &mut Scene<'_>) -> Outcome {
    let mut path = scene.workspace.clone();
    path.extend(std::iter::repeat_n("d", 200));
    deep(scene, &path.join("secret-file"))
}

fn deep(scene: &mut Scene<'_>, path: &std::path::Path) -> Outcome {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, "text")?;
    let spec = "files:\n  - {allow: [read], paths: [\"$W/**\"]}\n";
    Cycle::new()
        .allowed(step!("open", path, "r"))
        .denied(step!("open", path, "w"), record("file_open", &["write"], json!({"path": path}), "no_rule", None))
        .run(scene, spec)
}

fn a_longer_path_than_can_be_decided_is_denied(scene: &mut Scene<'_>) -> Outcome {
    // No call takes more than 4,096 bytes, so it is walked bit by bit.
    let mut unbound = scene.process()?;
    unbound.works(&step!("chdir", scene.workspace), "before binding")?;
    let name = "n".repeat(250);
    for _ in 0..20 {
        unbound.works(&step!("mkdir", name), "before binding")?;
        unbound.works(&step!("chdir", name), "before binding")?;
    }
    unbound.works(&step!("open", "file", "w,creat"), "before binding")?;
    scene.bind("files:\n  - {allow: [all], paths: [\"/**\"]}\n")?;
    let expected = json!({"operation": "file_open", "reason": "fault:path-too-long", "errno": "EACCES"});
    scene.denied(&mut unbound, &step!("open", "file", "r"), libc::EACCES, &expected)?;
    scene.unbind_after(1)?;
    unbound.works(&step!("open", "file", "r"), "after unbinding").map(drop)
}

fn a_name_with_a_newline_or_invalid_utf8_is_escaped_and_forges_nothing(scene: &mut Scene<'_>) -> Outcome {
    let forged = b"x\n{\"seq\":1,\"type\":\"operation\",\"forged\":true}".to_vec();
    let invalid = b"\xff\xfe\x1b[2J\xe2\x80\xae".to_vec();
    let w = scene.workspace.display().to_string();
    let escaped = [
        format!("{w}/x\\x0a{{\"seq\":1,\"type\":\"operation\",\"forged\":true}}"),
        format!("{w}/\\xff\\xfe\\x1b[2J\\xe2\\x80\\xae"),
    ];
    let mut cycle = Cycle::new();
    for (name, escaped) in [forged, invalid].into_iter().zip(escaped) {
        let path = scene.workspace.join(OsString::from_vec(name));
        fs::write(&path, "text")?;
        let expected = record("file_open", &["read"], json!({"path": escaped}), "no_rule", None);
        cycle = cycle.denied(step!("open", path, "r"), expected);
    }
    cycle.run(scene, "files:\n  - {allow: [read], paths: [\"/none\"]}\n")?;
    scene.records.read()?;
    let is_forged = |line: &String| line.starts_with("{\"seq\":1,\"type\":\"operation\",\"forged\"");
    anyhow::ensure!(!scene.records.lines.iter().any(is_forged), "a line was forged");
    Ok(())
}
