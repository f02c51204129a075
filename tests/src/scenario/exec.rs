//! `bprm_check_security`: what may be executed, by whatever road.

use serde_json::json;

use crate::harness::{Cycle, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_denied_program_is_not_executed_under_any_name,
    a_script_needs_itself_and_its_interpreter,
    a_program_without_a_name_is_not_executed,
    a_program_may_be_executed_without_a_name_where_a_rule_says_so,
];

/// A static program that ends with status 0 at once.
fn program(scene: &Scene<'_>, name: &str) -> std::path::PathBuf {
    let path = scene.path(name);
    std::fs::copy("/bin/busybox", &path).expect("the machine has busybox");
    path
}

fn a_denied_program_is_not_executed_under_any_name(scene: &mut Scene<'_>) -> Outcome {
    let (copy, allowed) = (program(scene, "true"), program(scene, "allowed-true"));
    let link = scene.path("link");
    std::os::unix::fs::symlink(&copy, &link)?;
    let denied = || record("file_open", &[], json!({"path": copy}), "no_rule", None);
    let spec = r#"
exec:
  - {allow: ["/bin/busybox", "$W/allowed-*", "$W/link"]}
"#;
    Cycle::new()
        .allowed(step!("exec", "/bin/busybox", "true"))
        .allowed(step!("exec", "/bin/true"))
        .denied(step!("exec", copy), denied())
        .denied(step!("exec", link), denied())
        .denied(step!("exec", copy, "allowed-true"), denied())
        .allowed(step!("exec", allowed, "true"))
        .run(scene, spec)
}

fn a_script_needs_itself_and_its_interpreter(scene: &mut Scene<'_>) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let (good, bad) = (program(scene, "good-sh"), program(scene, "bad-sh"));
    let script = |name: &str, interpreter: &std::path::Path| {
        let path = scene.file(name, &format!("#!{}  sh\nexit 0\n", interpreter.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map(|()| path)
    };
    let denied_script = script("denied-script", &good)?;
    let denied_interpreter = script("script-of-bad", &bad)?;
    let allowed = script("script-of-good", &good)?;
    let spec = r#"
files:
  - {allow: [read], paths: ["$W/script-*", "$W/denied-script"]}
exec:
  - {allow: ["$W/script-*", "$W/good-sh"]}
"#;
    let object = |path: &std::path::Path| json!({"path": path});
    Cycle::new()
        .denied(step!("exec", denied_script), record("file_open", &[], object(&denied_script), "no_rule", None))
        .denied(step!("exec", denied_interpreter), record("file_open", &[], object(&bad), "no_rule", None))
        .allowed(step!("exec", allowed))
        .run(scene, spec)
}

const PROGRAMS: &str = r#"
files:
  - {allow: [read, write, create, delete], paths: ["$W", "$W/**", "/bin/busybox", "anon:memfd", "anon:deleted"]}
"#;

fn a_program_without_a_name_is_not_executed(scene: &mut Scene<'_>) -> Outcome {
    let name = scene.path("program");
    let (workspace, gone) = (scene.workspace.clone(), name.clone());
    let make = move || {
        std::fs::copy("/bin/busybox", &gone).expect("the machine has busybox");
    };
    let denied = |word: &str| vec![record("bprm_check_security", &[], json!({"path": word}), "no_rule", None)];
    let opened = |word: &str| vec![record("file_open", &[], json!({"path": word}), "no_rule", None)];
    let _ = denied;
    let eacces = libc::EACCES;
    Cycle::new()
        .prepared(|| (), step!("exec-memfd", "/bin/busybox"), eacces, opened("anon:memfd"))
        .prepared(|| (), step!("exec-tmpfile", "/bin/busybox", workspace), eacces, opened("anon:deleted"))
        .allowed_after(make, step!("hold", "program", name, "path"))
        .allowed(step!("unlink", name))
        .prepared(|| (), step!("exec-held", "program"), eacces, opened("anon:deleted"))
        .run(scene, PROGRAMS)
}

fn a_program_may_be_executed_without_a_name_where_a_rule_says_so(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!("{PROGRAMS}exec:\n  - {{allow: [\"anon:memfd\", \"anon:deleted\"]}}\n");
    let workspace = scene.workspace.clone();
    Cycle::new()
        .allowed(step!("exec-memfd", "/bin/busybox"))
        .allowed(step!("exec-tmpfile", "/bin/busybox", workspace))
        .run(scene, &spec)
}
