//! Overlays, which most containers live on: a file is judged by its path in the overlay, once, and what the overlay does
//! below it with its mounter's credentials is not the agent's.

use std::fs;

use serde_json::json;

use crate::harness::{Cycle, Mount, Outcome, Scenario, Scene, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_file_of_an_overlay_is_judged_by_its_path_there,
    a_file_below_an_overlay_is_another_name,
    a_mapping_on_an_overlay_is_judged_by_its_path_there,
];

const SPEC: &str = r#"
files:
  - {allow: [read, write, create, delete, rename, set-attributes, map-exec], paths: ["$W/merged/open{,/**}"]}
  - {allow: [read], paths: ["$W/merged/data/**"]}
"#;

/// Mounts an overlay with files in `open`, `closed` and `data`, all of them in the lower layer.
fn mount(scene: &Scene<'_>) -> anyhow::Result<Mount> {
    if !fs::read_to_string("/proc/filesystems")?.contains("\toverlay\n") {
        return Err(skip("this kernel has no overlays, or its package of modules is not to be had"));
    }
    for name in ["open/file", "open/other", "closed/file", "data/file"] {
        scene.file(&format!("lower/{name}"), "lower");
    }
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scene.path(name));
    for place in [&upper, &work, &merged] {
        fs::create_dir_all(place)?;
    }
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let words = ["-t", "overlay", "-o", &layers, "overlay"].map(std::ffi::OsStr::new);
    Mount::with(&[words.as_slice(), &[merged.as_os_str()]].concat(), &merged)
}

fn a_file_of_an_overlay_is_judged_by_its_path_there(scene: &mut Scene<'_>) -> Outcome {
    let _overlay = mount(scene)?;
    let closed = scene.path("merged/closed/file");
    let (file, other, new) =
        (scene.path("merged/open/file"), scene.path("merged/open/other"), scene.path("merged/open/new"));
    let denied = |hook: &str, access: &str| record(hook, &[access], json!({"path": closed}), "no_rule", None);
    let made = || fs::write(&other, "made").expect("a file of the overlay can be written");
    let gone = || drop(fs::remove_file(&new));
    let made_closed = || fs::write(&closed, "as it was").expect("a file of the overlay can be written");
    Cycle::new()
        .denied_after(made_closed, step!("open", closed, "r"), denied("file_open", "read"))
        .denied(step!("open", closed, "w"), denied("file_open", "write"))
        .denied(step!("chmod", closed, "420"), denied("path_chmod", "set-attributes"))
        .denied(step!("utimes", closed), denied("inode_setattr", "set-attributes"))
        .denied(step!("unlink", closed), denied("path_unlink", "delete"))
        .allowed(step!("open", file, "r"))
        // The first write copies the file up.
        .allowed(step!("open", file, "w"))
        .allowed(step!("chmod", file, "420"))
        .allowed(step!("utimes", file))
        .allowed_after(gone, step!("open", new, "w,creat"))
        // What was in the lower layer leaves a whiteout there.
        .allowed_after(made, step!("unlink", other))
        .allowed_after(made, step!("rename", other, new))
        .run(scene, SPEC)?;
    anyhow::ensure!(fs::read_to_string(scene.path("lower/open/file"))? == "lower", "the lower layer was changed");
    Ok(())
}

/// What may be done in the overlay may not be done to the same file beside it.
fn a_file_below_an_overlay_is_another_name(scene: &mut Scene<'_>) -> Outcome {
    let _overlay = mount(scene)?;
    fs::write(scene.path("merged/open/file"), "upper")?;
    let mut cycle = Cycle::new();
    for layer in ["lower/open/file", "upper/open/file"] {
        let path = scene.path(layer);
        let denied = |access: &str| record("file_open", &[access], json!({"path": path}), "no_rule", None);
        cycle =
            cycle.denied(step!("open", path, "r"), denied("read")).denied(step!("open", path, "w"), denied("write"));
    }
    cycle.allowed(step!("open", scene.path("merged/open/file"), "r")).run(scene, SPEC)
}

/// From 6.5 on what is mapped is the file below.
fn a_mapping_on_an_overlay_is_judged_by_its_path_there(scene: &mut Scene<'_>) -> Outcome {
    let _overlay = mount(scene)?;
    let (open, data) = (scene.path("merged/open/file"), scene.path("merged/data/file"));
    let denied = |hook: &str| record(hook, &["map-exec"], json!({"path": data}), "no_rule", None);
    Cycle::new()
        .allowed(step!("map-exec", open))
        .allowed(step!("map-then-exec", open))
        .denied(step!("map-exec", data), denied("mmap_file"))
        .denied(step!("map-then-exec", data), denied("file_mprotect"))
        .run(scene, SPEC)
}
