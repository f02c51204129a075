//! Names: made, removed, and files changed through them (`path_*`).

use std::fs;

use serde_json::json;

use crate::harness::{Cycle, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    denied_creations_return_eacces_and_make_nothing,
    denied_removals_return_eacces_and_remove_nothing,
    denied_changes_return_eacces_and_change_nothing,
    creations_removals_and_changes_work_where_rules_allow_them,
];

fn denied_creations_return_eacces_and_make_nothing(scene: &mut Scene<'_>) -> Outcome {
    let (name, old) = (scene.path("new"), scene.file("old", "o"));
    let gone = name.clone();
    let free = || {
        let gone = gone.clone();
        move || {
            let _ = fs::remove_file(&gone);
            let _ = fs::remove_dir(&gone);
        }
    };
    let made = |hook: &str| record(hook, &["create"], json!({"path": name}), "deny_rule", Some("files[1]"));
    let linked =
        record("path_link", &["create", "link"], json!({"path": old, "new_path": name}), "deny_rule", Some("files[1]"));
    let spec = r#"
files:
  - {allow: [all], paths: ["/**"]}
  - {deny: [create], paths: ["$W/new"]}
"#;
    let cycle = Cycle::new()
        .denied_after(free(), step!("mknod", name, "file"), made("path_mknod"))
        .denied_after(free(), step!("mknod", name, "fifo"), made("path_mknod"))
        .denied_after(free(), step!("mknod", name, "socket"), made("path_mknod"))
        .denied_after(free(), step!("open", name, "w,creat,excl"), made("path_mknod"))
        .denied_after(free(), step!("mkdir", name), made("path_mkdir"))
        .denied_after(free(), step!("symlink", old, name), made("path_symlink"))
        .denied_after(free(), step!("link", old, name), linked);
    cycle.run(scene, spec)?;
    // And the state: bound again, nothing is there after each try.
    scene.bind(spec)?;
    let mut process = scene.process()?;
    free()();
    for step in
        [step!("mkdir", name), step!("mknod", name, "file"), step!("symlink", old, name), step!("link", old, name)]
    {
        process.expect(&step, libc::EACCES, "bound")?;
        anyhow::ensure!(fs::symlink_metadata(&name).is_err(), "{} was made", name.display());
    }
    Ok(())
}

fn denied_removals_return_eacces_and_remove_nothing(scene: &mut Scene<'_>) -> Outcome {
    let (file, directory, target) = (scene.path("file"), scene.path("directory"), scene.path("target"));
    let names = (file.clone(), directory.clone(), target.clone());
    let there = || {
        let (file, directory, target) = names.clone();
        move || {
            for path in [&file, &target] {
                fs::write(path, "text").expect("the workspace is a tmpfs with room");
            }
            let _ = fs::create_dir(&directory);
        }
    };
    let denied = |hook: &str, access: &[&str], object| record(hook, access, object, "deny_rule", Some("files[1]"));
    let spec = r#"
files:
  - {allow: [all], paths: ["/**"]}
  - {deny: [delete], paths: ["$W/**"]}
"#;
    Cycle::new()
        .denied_after(there(), step!("unlink", file), denied("path_unlink", &["delete"], json!({"path": file})))
        .denied_after(there(), step!("rmdir", directory), denied("path_rmdir", &["delete"], json!({"path": directory})))
        .denied_after(
            there(),
            step!("rename", file, target),
            denied("path_rename", &["delete", "rename"], json!({"path": file, "new_path": target})),
        )
        .run(scene, spec)?;
    scene.bind(spec)?;
    there()();
    let mut process = scene.process()?;
    for step in [step!("unlink", file), step!("rmdir", directory), step!("rename", file, target)] {
        process.expect(&step, libc::EACCES, "bound")?;
    }
    anyhow::ensure!(file.exists() && directory.exists() && fs::read(&target)? == b"text", "something is gone");
    Ok(())
}

fn denied_changes_return_eacces_and_change_nothing(scene: &mut Scene<'_>) -> Outcome {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let file = scene.file("file", "text");
    let again = file.clone();
    let fill = || {
        let again = again.clone();
        move || {
            fs::write(&again, "text").expect("the workspace is a tmpfs with room");
            fs::set_permissions(&again, fs::Permissions::from_mode(0o640)).expect("the file is ours");
            std::os::unix::fs::chown(&again, Some(0), Some(0)).expect("we are root");
        }
    };
    let denied = |hook: &str, access: &str| record(hook, &[access], json!({"path": file}), "no_rule", None);
    let spec = "files:\n  - {allow: [read], paths: [\"$W/**\"]}\ncapabilities:\n  - {allow: [CAP_CHOWN, CAP_FSETID]}\n";
    Cycle::new()
        .denied_after(fill(), step!("truncate", file, "0"), denied("path_truncate", "write"))
        .denied_after(fill(), step!("chmod", file, "511"), denied("path_chmod", "set-attributes"))
        .denied_after(fill(), step!("chown", file, "65534"), denied("path_chown", "set-attributes"))
        .denied_after(fill(), step!("lchown", file, "65534"), denied("path_chown", "set-attributes"))
        .allowed_after(fill(), step!("hold", "file", file, "r"))
        .denied_after(fill(), step!("fchmod", "file", "511"), denied("path_chmod", "set-attributes"))
        .run(scene, spec)?;
    fill()();
    scene.bind(spec)?;
    let mut process = scene.process()?;
    for step in [step!("truncate", file, "0"), step!("chmod", file, "511"), step!("chown", file, "65534")] {
        process.expect(&step, libc::EACCES, "bound")?;
    }
    let now = fs::metadata(&file)?;
    anyhow::ensure!((now.len(), now.mode() & 0o777, now.uid()) == (4, 0o640, 0), "the file was changed: {now:?}");
    Ok(())
}

fn creations_removals_and_changes_work_where_rules_allow_them(scene: &mut Scene<'_>) -> Outcome {
    let path = |name: &str| scene.path(name);
    let (file, moved, linked, link, directory) =
        (path("file"), path("moved"), path("linked"), path("link"), path("directory"));
    let spec = r#"
files:
  - {allow: [read, write, create, delete, rename, link, set-attributes], paths: ["$W/**"]}
"#;
    Cycle::new()
        .allowed(step!("mknod", file, "file"))
        .allowed(step!("truncate", file, "3"))
        .allowed(step!("chmod", file, "384"))
        .allowed(step!("link", file, linked))
        .allowed(step!("rename", file, moved))
        .allowed(step!("rename", moved, linked, "exchange"))
        .allowed(step!("symlink", moved, link))
        .allowed(step!("unlink", link))
        .allowed(step!("unlink", linked))
        .allowed(step!("unlink", moved))
        .allowed(step!("mkdir", directory))
        .allowed(step!("rmdir", directory))
        .run(scene, spec)
}
