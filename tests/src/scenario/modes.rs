//! Set-id bits, whiteouts, and directories that take several spellings for one name.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use serde_json::json;

use crate::harness::{Cycle, EACCES, Mount, Outcome, Scenario, Scene, privilege, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    set_id_bits_need_their_privilege,
    a_whiteout_needs_the_right_to_create,
    a_directory_that_takes_several_spellings_for_a_name_is_a_fault,
];

const SET_USER: &str = "2541"; // 0o4755
const SET_GROUP: &str = "1517"; // 0o2755

/// Whoever executes such a file acts as the agent's user, outside of the agent.
fn set_id_bits_need_their_privilege(scene: &mut Scene<'_>) -> Outcome {
    let (file, new) = (scene.file("file", "f"), scene.path("new"));
    let (directory, place) = (scene.path("directory"), scene.workspace.clone());
    fs::create_dir(&directory)?;
    let free = || {
        let (file, new) = (file.clone(), new.clone());
        move || {
            let _ = fs::remove_file(&new);
            let plain = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            fs::set_permissions(&file, plain).expect("the file is the scenario's own");
        }
    };
    let spec = "files:\n  - {allow: [all], paths: [\"$W\", \"$W/**\", \"anon:deleted\"]}\n\
                capabilities:\n  - {allow: [CAP_FSETID]}\n";
    let denied = || privilege("set-id-bits");
    Cycle::new()
        .denied_after(free(), step!("chmod", file, SET_USER), denied())
        .denied_after(free(), step!("chmod", file, SET_GROUP), denied())
        .allowed(step!("hold", "file", file, "r"))
        .denied_after(free(), step!("fchmod", "file", SET_USER), denied())
        .denied_after(free(), step!("make-mode", new, SET_USER), denied())
        .denied_after(free(), step!("mknod-mode", new, SET_USER), denied())
        .denied_after(free(), step!("make-nameless", place, SET_USER), denied())
        .allowed_after(free(), step!("chmod", file, "493"))
        .allowed_after(free(), step!("make-mode", new, "493"))
        .allowed_after(free(), step!("make-nameless", place, "493"))
        // On a directory it says whose group the files in it are.
        .allowed(step!("chmod", directory, SET_GROUP))
        .run(scene, spec)?;
    free()();
    let mut process = scene.process()?;
    scene.bind(spec)?;
    process.expect(&step!("chmod", file, SET_USER), EACCES, "bound")?;
    process.expect(&step!("make-mode", new, SET_USER), EACCES, "bound")?;
    ensure!(fs::metadata(&file)?.mode() & 0o7777 == 0o644 && !new.exists(), "a file with the bit is there");
    scene.unbind_after(2)?;
    Cycle::new()
        .allowed_after(free(), step!("chmod", file, SET_USER))
        .allowed_after(free(), step!("make-mode", new, SET_USER))
        .run(scene, &format!("{spec}privileges:\n  - {{allow: [set-id-bits]}}\n"))
}

fn a_whiteout_needs_the_right_to_create(scene: &mut Scene<'_>) -> Outcome {
    let (old, new) = (scene.path("old"), scene.path("new"));
    let there = || {
        let (old, new) = (old.clone(), new.clone());
        move || {
            let _ = fs::remove_file(&new);
            let _ = fs::remove_file(&old);
            fs::write(&old, "o").expect("the workspace is a tmpfs with room");
        }
    };
    let spec = |words: &str| {
        format!("files:\n  - {{allow: [{words}], paths: [\"$W/*\"]}}\ncapabilities:\n  - {{allow: [CAP_MKNOD]}}\n")
    };
    let denied = record("path_rename", &["create", "rename"], json!({"path": old, "new_path": new}), "no_rule", None);
    Cycle::new()
        .denied_after(there(), step!("rename", old, new, "whiteout"), denied)
        .allowed_after(there(), step!("rename", old, new))
        .run(scene, &spec("rename"))?;
    Cycle::new().allowed_after(there(), step!("rename", old, new, "whiteout")).run(scene, &spec("rename, create"))
}

fn a_directory_that_takes_several_spellings_for_a_name_is_a_fault(scene: &mut Scene<'_>) -> Outcome {
    let place = scene.path("place");
    fs::create_dir(&place)?;
    let words = ["-t", "tmpfs", "-o", "casefold", "tmpfs"].map(OsStr::new);
    let Ok(_mount) = Mount::with(&[words.as_slice(), &[place.as_os_str()]].concat(), &place) else {
        return Err(skip("this kernel's tmpfs has no directories that fold names (from 6.13 on)"));
    };
    let (folding, plain) = (place.join("folding"), place.join("plain"));
    for directory in [&folding, &plain] {
        fs::create_dir(directory)?;
    }
    let done = Command::new("/proc/self/exe").args(["once", "fold"]).arg(&folding).output()?.status;
    ensure!(done.success(), "the directory does not fold names: {done}");
    for directory in [&folding, &plain] {
        fs::write(directory.join(".env"), "secret")?;
        fs::write(directory.join("other"), "text")?;
    }
    let spec = "files:\n  - {allow: [all], paths: [\"$W/**\"]}\n  - {deny: [all], paths: [\"**/.env\"]}\n";
    let fault = |hook: &str, access: &str| {
        json!({"type": "operation", "operation": hook, "access": [access], "verdict": "deny",
               "reason": "fault:path-case", "errno": "EACCES"})
    };
    let (unlike, new) = (folding.join(".ENV"), folding.join(".Env2"));
    let gone = || {
        let new = new.clone();
        move || drop(fs::remove_dir(&new))
    };
    let denied = |path: &Path| record("file_open", &["read"], json!({"path": path}), "deny_rule", Some("files[1]"));
    Cycle::new()
        .denied(step!("open", unlike, "r"), fault("file_open", "read"))
        .denied(step!("open", folding.join("other"), "r"), fault("file_open", "read"))
        .denied_after(gone(), step!("mkdir", new), fault("path_mkdir", "create"))
        .denied(step!("open", plain.join(".env"), "r"), denied(&plain.join(".env")))
        .allowed(step!("open", plain.join("other"), "r"))
        .allowed(step!("open", folding, "r"))
        .run(scene, spec)
}
