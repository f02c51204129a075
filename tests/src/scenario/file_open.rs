//! `file_open`: opens by any road.

use serde_json::json;

use crate::harness::{Cycle, EACCES, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    denied_open_returns_eacces_and_is_recorded,
    an_open_for_read_and_write_needs_both,
    a_truncating_open_needs_write_even_for_reading,
    an_open_of_what_is_not_there_needs_create,
    a_path_descriptor_gives_no_right_to_open_again,
    no_call_makes_an_open_for_writing_one_of_an_exec,
    a_denial_that_another_user_repeats_is_told_with_that_user,
];

fn denied_open_returns_eacces_and_is_recorded(scene: &mut Scene<'_>) -> Outcome {
    let (secret, notes) = (scene.file("secret/key", "s"), scene.file("notes", "n"));
    let object = json!({"path": secret});
    let spec = r#"
files:
  - {allow: [read], paths: ["$W/notes", "$W/secret/**"]}
  - {deny: [all], paths: ["$W/secret/**"], reason: it is secret}
"#;
    Cycle::new()
        .denied(
            step!("open", secret, "r"),
            record("file_open", &["read"], object.clone(), "deny_rule", Some("files[1]")),
        )
        .denied(
            step!("open", secret, "w"),
            record("file_open", &["write"], object.clone(), "deny_rule", Some("files[1]")),
        )
        .denied(
            step!("open", scene.path("."), "r,dir"),
            record("file_open", &["read"], json!({"path": scene.workspace}), "no_rule", None),
        )
        .allowed(step!("open", notes, "r"))
        .denied(
            step!("open", notes, "w,append"),
            record("file_open", &["write"], json!({"path": notes}), "no_rule", None),
        )
        .run(scene, spec)
}

fn an_open_for_read_and_write_needs_both(scene: &mut Scene<'_>) -> Outcome {
    let (readable, writable, both) =
        (scene.file("readable", "r"), scene.file("writable", "w"), scene.file("both", "b"));
    let object = |path: &std::path::Path| json!({"path": path});
    let spec = r#"
files:
  - {allow: [read], paths: ["$W/readable"]}
  - {allow: [write], paths: ["$W/writable"]}
  - {allow: [read, write], paths: ["$W/both"]}
"#;
    let both_words: &[&str] = &["read", "write"];
    Cycle::new()
        .denied(step!("open", readable, "rw"), record("file_open", both_words, object(&readable), "no_rule", None))
        .denied(step!("open", writable, "rw"), record("file_open", both_words, object(&writable), "no_rule", None))
        .denied(step!("open", readable, "3"), record("file_open", both_words, object(&readable), "no_rule", None))
        .allowed(step!("open", both, "rw"))
        .allowed(step!("open", both, "3"))
        .allowed(step!("open", both, "w,trunc"))
        .allowed(step!("open", readable, "r"))
        .allowed(step!("open", writable, "w"))
        .run(scene, spec)
}

fn a_path_descriptor_gives_no_right_to_open_again(scene: &mut Scene<'_>) -> Outcome {
    let secret = scene.file("secret", "s");
    let spec = r#"
files:
  - {allow: [read], paths: ["/proc/self/**"]}
"#;
    // Nothing sees the first; what is opened through it is judged on the file.
    Cycle::new()
        .allowed(step!("hold", "secret", secret, "path"))
        .denied(
            step!("reopen", "secret", "r"),
            record("file_open", &["read"], json!({"path": secret}), "no_rule", None),
        )
        .run(scene, spec)
}

fn a_truncating_open_needs_write_even_for_reading(scene: &mut Scene<'_>) -> Outcome {
    let (readable, name) = (scene.file("readable", "text"), scene.path("readable"));
    let spec = "files:\n  - {allow: [read], paths: [\"$W/*\"]}\n";
    // Which hook tells of it depends on the kernel.
    let denied = json!({"class": "file", "object": {"path": readable}, "verdict": "deny", "errno": "EACCES"});
    let refill = move || std::fs::write(&name, "text").expect("the workspace is a tmpfs with room");
    Cycle::new().denied_after(refill, step!("open", readable, "r,trunc"), denied).run(scene, spec)
}

fn an_open_of_what_is_not_there_needs_create(scene: &mut Scene<'_>) -> Outcome {
    let (new, allowed) = (scene.path("new"), scene.path("allowed"));
    let (gone, also_gone) = (new.clone(), allowed.clone());
    let spec = r#"
files:
  - {allow: [read, write], paths: ["$W/new"]}
  - {allow: [read, write, create], paths: ["$W/allowed"]}
"#;
    let object = json!({"path": new});
    Cycle::new()
        .denied_after(
            move || drop(std::fs::remove_file(&gone)),
            step!("open", new, "rw,creat"),
            record("path_mknod", &["create"], object, "no_rule", None),
        )
        .allowed_after(move || drop(std::fs::remove_file(&also_gone)), step!("open", allowed, "rw,creat"))
        .run(scene, spec)
}

/// The kernel's mark of an open by exec is passed on by some calls.
fn no_call_makes_an_open_for_writing_one_of_an_exec(scene: &mut Scene<'_>) -> Outcome {
    const EXEC: &str = "32";
    let mut process = scene.process()?;
    scene.bind("exec:\n  - {allow: [\"/**\"]}\nfiles:\n  - {allow: [read, write], paths: [\"/dev/ptmx\"]}\n")?;
    process.works(&step!("hold", "terminal", "/dev/ptmx", "rw"), "bound")?;
    let expected = json!({"type": "operation", "operation": "file_open", "class": "file", "access": ["read", "write"],
        "verdict": "deny", "reason": "no_rule", "errno": "EACCES"});
    for flags in ["0", EXEC] {
        scene.start = scene.records.lines.len();
        scene.denied(&mut process, &step!("peer-of", "terminal", flags), EACCES, &expected)?;
    }
    scene.unbind_after(2)
}

/// A repeat by the same process is only counted; who is somebody else by then repeats nothing.
fn a_denial_that_another_user_repeats_is_told_with_that_user(scene: &mut Scene<'_>) -> Outcome {
    let secret = scene.file("secret", "s");
    let mut process = scene.process()?;
    scene.bind("capabilities:\n  - {allow: [CAP_SETUID]}\n")?;
    process.expect(&step!("open-and-as-user", secret), EACCES, "bound")?;
    for user in [0, 1] {
        let mut expected = record("file_open", &["read"], json!({"path": secret}), "no_rule", None);
        expected["process"] = json!({"uid": user});
        scene.record(&expected)?;
    }
    scene.unbind_after(2)
}
