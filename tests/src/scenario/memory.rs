//! `mmap_file` and `file_mprotect`: memory that can be executed.

use serde_json::json;

use crate::harness::{Cycle, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_library_is_mapped_executable_only_by_a_rule,
    anonymous_memory_becomes_executable_only_by_a_rule,
    executable_memory_of_a_file_is_written_only_by_a_rule,
];

fn a_library_is_mapped_executable_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let (evil, good, program) = (scene.file("evil.so", "e"), scene.file("good.so", "g"), scene.file("program", "p"));
    let denied = |hook: &str| record(hook, &["map-exec"], json!({"path": evil}), "no_rule", None);
    let spec = r#"
files:
  - {allow: [read], paths: ["$W/*"]}
  - {allow: [map-exec], paths: ["$W/good.so"]}
exec:
  - {allow: ["$W/program"]}
"#;
    Cycle::new()
        .allowed(step!("map-read", evil))
        .denied(step!("map-exec", evil), denied("mmap_file"))
        .denied(step!("map-then-exec", evil), denied("file_mprotect"))
        .allowed(step!("map-exec", good))
        .allowed(step!("map-then-exec", good))
        // What may be executed may be mapped so.
        .allowed(step!("map-exec", program))
        .run(scene, spec)
}

fn anonymous_memory_becomes_executable_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let denied = |hook: &str, word: &str| record(hook, &["map-exec"], json!({"path": word}), "no_rule", None);
    let spec = "files:\n  - {allow: [read], paths: [\"/none\"]}\n";
    Cycle::new()
        .denied(step!("map-memory-exec"), denied("mmap_file", "anon:other"))
        .denied(step!("map-memory-then-exec"), denied("file_mprotect", "anon:other"))
        .denied(step!("map-memfd-exec"), denied("mmap_file", "anon:memfd"))
        .run(scene, spec)?;
    Cycle::new()
        .allowed(step!("map-memory-exec"))
        .allowed(step!("map-memory-then-exec"))
        .denied(step!("map-memfd-exec"), denied("mmap_file", "anon:memfd"))
        .run(scene, "files:\n  - {allow: [map-exec], paths: [\"anon:other\"]}\n")
}

/// A rule for a file speaks of what is in the file, and not of what was written over its mapping.
fn executable_memory_of_a_file_is_written_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    let library = scene.file("library.so", "l");
    let denied = |hook: &str| record(hook, &["map-exec"], json!({"path": "anon:other"}), "no_rule", None);
    let spec = "files:\n  - {allow: [read, map-exec], paths: [\"$W/*\", \"/root/scenarios\"]}\n";
    Cycle::new()
        .allowed(step!("map-exec", library))
        .allowed(step!("map-then-exec", library))
        .denied(step!("own-code-writable"), denied("file_mprotect"))
        .denied(step!("map-write-exec", library), denied("mmap_file"))
        .denied(step!("map-write-then-exec", library), denied("file_mprotect"))
        .run(scene, spec)?;
    Cycle::new()
        .allowed(step!("own-code-writable"))
        .allowed(step!("map-write-exec", library))
        .allowed(step!("map-write-then-exec", library))
        .run(
            scene,
            "files:\n  - {allow: [read], paths: [\"$W/*\"]}\n  - {allow: [map-exec], paths: [\"anon:other\"]}\n",
        )
}
