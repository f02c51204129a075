//! Renames and links may give no file more rights than it has (`path_rename`, `path_link`).

use std::fs;

use serde_json::json;

use crate::harness::mount::Mount;
use crate::harness::{Cycle, Outcome, Scenario, Scene, builtin};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_denied_directory_is_not_renamed_to_an_allowed_name,
    a_rename_gives_no_more_rights,
    a_hard_link_gives_no_more_rights,
    a_new_name_gives_no_more_rights_by_another_mount,
];

const MORE: &str = "more-rights";

fn a_denied_directory_is_not_renamed_to_an_allowed_name(scene: &mut Scene<'_>) -> Outcome {
    let (private, public, above, other) =
        (scene.path("w/private"), scene.path("w/public"), scene.path("w"), scene.path("v"));
    let root = scene.workspace.clone();
    let there = || {
        let root = root.clone();
        move || {
            for name in ["w", "v"] {
                let _ = fs::remove_dir_all(root.join(name));
            }
            fs::create_dir_all(root.join("w/private")).expect("the workspace is a tmpfs with room");
            fs::write(root.join("w/private/key"), "k").expect("the workspace is a tmpfs with room");
            fs::write(root.join("w/plain"), "p").expect("the workspace is a tmpfs with room");
        }
    };
    let denied = |from: &std::path::Path, to: &std::path::Path| {
        builtin("path_rename", &["rename"], json!({"path": from, "new_path": to}), MORE)
    };
    let spec = r#"
files:
  - {allow: [all], paths: ["/**"]}
  - {deny: [all], paths: ["$W/w/private/**"]}
"#;
    let plain = scene.path("w/plain");
    Cycle::new()
        .denied_after(there(), step!("rename", private, public), denied(&private, &public))
        .denied_after(there(), step!("rename", private, public, "noreplace"), denied(&private, &public))
        .denied_after(there(), step!("rename", above, other), denied(&above, &other))
        .denied_after(there(), step!("rename", private, plain, "exchange"), denied(&private, &plain))
        .run(scene, spec)
}

fn a_rename_gives_no_more_rights(scene: &mut Scene<'_>) -> Outcome {
    let (readable, writable, new) = (scene.path("readable"), scene.path("writable"), scene.path("writable-new"));
    let root = scene.workspace.clone();
    let there = || {
        let root = root.clone();
        move || {
            for name in ["readable", "writable"] {
                fs::write(root.join(name), name).expect("the workspace is a tmpfs with room");
            }
            let _ = fs::remove_file(root.join("writable-new"));
        }
    };
    let denied = |access: &[&str], from: &std::path::Path, to: &std::path::Path| {
        builtin("path_rename", access, json!({"path": from, "new_path": to}), MORE)
    };
    let spec = r#"
files:
  - {allow: [read, rename, delete], paths: ["$W/readable"]}
  - {allow: [read, write, rename, delete], paths: ["$W/writable*"]}
"#;
    Cycle::new()
        .denied_after(there(), step!("rename", readable, new), denied(&["rename"], &readable, &new))
        .denied_after(there(), step!("rename", readable, writable), denied(&["delete", "rename"], &readable, &writable))
        .denied_after(
            there(),
            step!("rename", readable, writable, "exchange"),
            denied(&["rename"], &readable, &writable),
        )
        .denied_after(
            there(),
            step!("rename", writable, readable, "exchange"),
            // An exchange goes both ways; the one that gives more rights is told.
            denied(&["rename"], &readable, &writable),
        )
        .allowed_after(there(), step!("rename", writable, readable))
        .allowed_after(there(), step!("rename", writable, new))
        .run(scene, spec)
}

fn a_hard_link_gives_no_more_rights(scene: &mut Scene<'_>) -> Outcome {
    let (readable, program) = (scene.file("readable", "r"), scene.file("program", "p"));
    let (writable, less) = (scene.path("writable"), scene.path("less"));
    let root = scene.workspace.clone();
    let free = || {
        let root = root.clone();
        move || {
            for name in ["writable", "less"] {
                let _ = fs::remove_file(root.join(name));
            }
        }
    };
    let denied = |from: &std::path::Path, to: &std::path::Path| {
        builtin("path_link", &["create", "link"], json!({"path": from, "new_path": to}), MORE)
    };
    let spec = r#"
files:
  - {allow: [read, link], paths: ["$W/readable", "$W/program"]}
  - {allow: [read, write, create, link], paths: ["$W/writable"]}
  - {allow: [create, link], paths: ["$W/less"]}
"#;
    Cycle::new()
        .denied_after(free(), step!("link", readable, writable), denied(&readable, &writable))
        .denied_after(free(), step!("link", program, writable), denied(&program, &writable))
        .denied_after(free(), step!("link", readable, less), denied(&readable, &less))
        .run(scene, spec)
}

/// What a rename or link changes below one mount is changed below all others that show it.
fn a_new_name_gives_no_more_rights_by_another_mount(scene: &mut Scene<'_>) -> Outcome {
    let (data, moves) = (scene.path("data"), scene.path("mv"));
    fs::create_dir_all(data.join("public"))?;
    fs::create_dir_all(data.join("private"))?;
    fs::create_dir_all(&moves)?;
    let _mount = Mount::bind(&data, &moves)?;
    let there = || {
        let data = data.clone();
        move || {
            for name in ["public/new", "private/new"] {
                let _ = fs::remove_file(data.join(name));
            }
            fs::write(data.join("private/key"), "k").expect("the workspace is a tmpfs with room");
            fs::write(data.join("public/plain"), "p").expect("the workspace is a tmpfs with room");
        }
    };
    let name = |name: &str| moves.join(name);
    let denied = |hook: &str, access: &[&str], from: &str, to: &str| {
        builtin(hook, access, json!({"path": data.join(from), "new_path": data.join(to)}), MORE)
    };
    let spec = r#"
files:
  - {allow: [rename, link, create, delete], paths: ["$W/mv/**"]}
  - {allow: [read], paths: ["$W/data/public/**"]}
"#;
    let (key, plain) = (name("private/key"), name("public/plain"));
    Cycle::new()
        .denied_after(
            there(),
            step!("rename", key, name("public/new")),
            denied("path_rename", &["rename"], "private/key", "public/new"),
        )
        .denied_after(
            there(),
            step!("rename", key, plain, "exchange"),
            denied("path_rename", &["rename"], "private/key", "public/plain"),
        )
        .denied_after(
            there(),
            step!("rename", plain, key, "exchange"),
            denied("path_rename", &["rename"], "private/key", "public/plain"),
        )
        .denied_after(
            there(),
            step!("link", key, name("public/new")),
            denied("path_link", &["create", "link"], "private/key", "public/new"),
        )
        .allowed_after(there(), step!("rename", plain, name("public/new")))
        .allowed_after(there(), step!("rename", key, name("private/new")))
        .allowed_after(there(), step!("rename", plain, name("private/new")))
        .allowed_after(there(), step!("link", key, name("private/new")))
        .run(scene, spec)
}
