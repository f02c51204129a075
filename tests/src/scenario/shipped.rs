//! The shipped policy for coding agents against what agents go for: credentials, and files that others run later.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use crate::harness::{EACCES, Outcome, Scenario, Scene};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_coding_agent_reads_no_credentials,
    a_coding_agent_plants_nothing_that_others_run_later,
    a_coding_agent_reaches_no_socket_of_the_machine,
    a_coding_agent_executes_nothing_from_its_workspace,
    an_agent_runs_no_program_among_the_libraries,
];

/// Binds the scene to the policy `coding-agent` with workspace `w` and home `home` in the scene's directory.
fn bind(scene: &mut Scene<'_>) -> Outcome {
    let (workspace, home) = (scene.path("w"), scene.path("home"));
    fs::create_dir_all(&workspace)?;
    fs::create_dir_all(&home)?;
    scene.bind_named("coding-agent", json!({"WORKSPACE": workspace, "HOME": home}))?;
    Ok(())
}

fn a_coding_agent_reads_no_credentials(scene: &mut Scene<'_>) -> Outcome {
    let names = [
        ".ssh/id_ed25519",
        ".aws/credentials",
        ".netrc",
        ".npmrc",
        ".config/gh/hosts.yml",
        ".mozilla/firefox/logins.json",
        ".bash_history",
        ".kube/config",
        ".docker/config.json",
        ".git-credentials",
        ".gnupg/private-keys-v1.d/k.key",
        ".env",
    ];
    let mut process = scene.process()?;
    for name in names {
        scene.file(&format!("home/{name}"), "secret");
        scene.file(&format!("w/{name}"), "secret");
    }
    // What belongs to a project, and to others in /tmp.
    let more = ["w/.env.local", "w/app/.env.production"].map(|name| scene.file(name, "secret"));
    let shared = ["/tmp/krb5cc_4711", "/tmp/systemd-private-scenario/tmp/x", "/dev/shm/PostgreSQL.4711"].map(Path::new);
    for path in shared {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        fs::write(path, "secret")?;
    }
    let allowed = [scene.file("w/src/main.rs", "code"), scene.file("w/.env.example", "template")];
    fs::create_dir_all("/run/secrets/kubernetes.io/serviceaccount")?;
    let token = "/run/secrets/kubernetes.io/serviceaccount/token";
    fs::write(token, "secret")?;
    bind(scene)?;
    for name in names {
        for path in [scene.path("home").join(name), scene.path("w").join(name)] {
            process.expect(&step!("open", path, "r"), EACCES, "bound")?;
            scene.record(&json!({"operation": "file_open", "object": {"path": path}, "errno": "EACCES",
                "reason": "deny_rule", "policy": {"name": "coding-agent"}}))?;
        }
    }
    process.expect(&step!("open", token, "r"), EACCES, "bound")?;
    process.expect(&step!("open", "/etc/shadow", "r"), EACCES, "bound")?;
    for path in more.iter().map(PathBuf::as_path).chain(shared) {
        process.expect(&step!("open", path, "r"), EACCES, "bound")?;
        scene.record(&json!({"operation": "file_open", "object": {"path": path}, "errno": "EACCES"}))?;
    }
    for path in allowed {
        process.works(&step!("open", path, "rw"), "bound")?;
    }
    // The terminal of somebody else: what is typed there is whatever its user types.
    let _controlling = fs::File::options().read(true).write(true).open("/dev/ptmx").context("open a terminal")?;
    let is_terminal = |name: &std::ffi::OsString| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    let terminal = fs::read_dir("/dev/pts")?.filter_map(|entry| Some(entry.ok()?.file_name())).find(is_terminal);
    let terminal = Path::new("/dev/pts").join(terminal.context("no terminal was made")?);
    process.expect(&step!("open", terminal, "rw"), EACCES, "bound")?;
    scene.record(&json!({"operation": "file_open", "object": {"path": terminal}, "reason": "no_rule"}))?;
    scene.unbind_after(2 * names.len() as u64 + 8)?;
    process.works(&step!("open", token, "r"), "after unbinding")?;
    fs::remove_dir_all("/tmp/systemd-private-scenario")?;
    fs::remove_file(shared[0])?;
    fs::remove_file(shared[2]).map_err(Into::into)
}

fn a_coding_agent_plants_nothing_that_others_run_later(scene: &mut Scene<'_>) -> Outcome {
    // The home is a directory that the agent works in, so that it is these files alone that it may not change.
    let names = [
        "w/.git/hooks/pre-commit",
        "w/.git/config",
        "w/.github/workflows/ci.yml",
        "w/.mcp.json",
        "w/.claude/settings.json",
        "w/.vscode/tasks.json",
        "w/.envrc",
        "w/sub/.git/hooks/post-merge",
        "w/.git/modules/lib/config",
        "w/.git/modules/third_party/lib/hooks/post-checkout",
        "w/.git/worktrees/side/gitdir",
        "w/lib/.git",
        "w/.husky/pre-commit",
        "w/.cargo/config.toml",
        "w/.gitlab-ci.yml",
        "w/home/.bashrc",
        "w/home/.profile",
        "w/home/.config/autostart/x.desktop",
        "w/home/.local/bin/git",
    ];
    let mut process = scene.process()?;
    for name in names {
        let path = scene.path(name);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
    }
    let (plain, alias) = (scene.file("w/plain", "p"), scene.path("w/alias"));
    std::os::unix::fs::symlink(scene.path("w/.git"), &alias)?;
    let (workspace, home) = (scene.path("w"), scene.path("w/home"));
    scene.bind_named("coding-agent", json!({"WORKSPACE": workspace, "HOME": home}))?;
    process.works(&step!("open", home.join("notes"), "w,creat"), "in the home, bound")?;
    for (round, existing) in [false, true].into_iter().enumerate() {
        for name in names {
            let path = scene.path(name);
            if existing {
                fs::write(&path, "as it was")?;
            }
            let before = fs::read(&path).ok();
            for step in [
                step!("open", path, "w,creat"),
                step!("rename", plain, path),
                step!("link", plain, path),
                step!("symlink", plain, path),
            ] {
                let (errno, _) = process.run(&step)?;
                // Making what is there already is the kernel's to refuse.
                let refused = errno == EACCES || (existing && errno == libc::EEXIST);
                anyhow::ensure!(refused, "round {round}: {} gave errno {errno}", crate::harness::process::shown(&step));
            }
            anyhow::ensure!(fs::read(&path).ok() == before, "{name} was changed");
            let hook = if existing { "file_open" } else { "path_mknod" };
            scene.record(
                &json!({"operation": hook, "object": {"path": path}, "reason": "deny_rule", "errno": "EACCES"}),
            )?;
        }
    }
    process.expect(&step!("open", alias.join("hooks/pre-push"), "w,creat"), EACCES, "through a link")?;
    let expected = json!({"operation": "path_mknod", "object": {"path": scene.path("w/.git/hooks/pre-push")},
        "reason": "deny_rule", "errno": "EACCES"});
    scene.record(&expected)?;
    process.works(&step!("open", scene.path("w/new.rs"), "w,creat"), "bound").map(drop)
}

fn a_coding_agent_reaches_no_socket_of_the_machine(scene: &mut Scene<'_>) -> Outcome {
    use std::os::unix::net::UnixListener;
    let mut process = scene.process()?;
    fs::create_dir_all("/run/dbus")?;
    let paths = ["/run/docker.sock", "/run/dbus/system_bus_socket", "/tmp/ssh-agent.sock"];
    let _ = paths.map(fs::remove_file);
    let listeners = paths.map(UnixListener::bind);
    for path in paths {
        process.works(&step!("unix-connect", path), "before binding")?;
    }
    bind(scene)?;
    for path in paths {
        process.expect(&step!("unix-connect", path), EACCES, "bound")?;
        scene.record(&json!({"operation": "unix_stream_connect", "object": {"unix": path}, "reason": "no_rule"}))?;
    }
    // A reverse shell, a shell that listens, and an abstract name.
    process.expect(&step!("connect", "tcp", "127.0.0.1:4444"), EACCES, "bound")?;
    process.expect(&step!("bind", "tcp", "127.0.0.1:4444"), EACCES, "bound")?;
    process.expect(&step!("unix-bind", "@scenario-coding"), EACCES, "bound")?;
    scene.unbind_after(6)?;
    drop(listeners);
    let _ = paths.map(fs::remove_file);
    Ok(())
}

fn a_coding_agent_executes_nothing_from_its_workspace(scene: &mut Scene<'_>) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let mut process = scene.process()?;
    fs::create_dir_all(scene.path("w"))?;
    let program = scene.path("w/sh");
    fs::copy("/bin/busybox", &program)?;
    let script = scene.file("w/run.sh", "#!/bin/busybox sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    bind(scene)?;
    for path in [&program, &script] {
        process.expect(&step!("exec", path, "-c", "true"), EACCES, "bound")?;
        scene.record(&json!({"class": "exec", "object": {"path": path}, "errno": "EACCES"}))?;
    }
    process.expect(&step!("map-exec", program), EACCES, "bound, as LD_PRELOAD would")?;
    scene.record(&json!({"operation": "mmap_file", "object": {"path": program}, "access": ["map-exec"]})).map(drop)
}

/// The loader runs what it may map executable, so that is libraries alone.
fn an_agent_runs_no_program_among_the_libraries(scene: &mut Scene<'_>) -> Outcome {
    let place = Path::new("/usr/lib/agent-monitor-scenario");
    fs::create_dir_all(place)?;
    let (program, library) = (place.join("program"), place.join("library.so.1"));
    fs::write(&program, "p")?;
    fs::write(&library, "l")?;
    let mut process = scene.process()?;
    scene.bind_named("base", json!({}))?;
    process.expect(&step!("map-exec", program), EACCES, "bound")?;
    scene.record(&json!({"operation": "mmap_file", "access": ["map-exec"], "object": {"path": program}}))?;
    process.works(&step!("map-exec", library), "bound")?;
    scene.unbind_after(1)?;
    process.works(&step!("map-exec", program), "after unbinding")?;
    fs::remove_dir_all(place).map_err(Into::into)
}
