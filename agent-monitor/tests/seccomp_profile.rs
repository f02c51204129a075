//! The profile that `policy export --seccomp` writes, taken and enforced by an OCI runtime.
//!
//! Needs root, `runc` and a static `busybox` in `PATH`, and a machine where runc starts containers; it says what is missing
//! and does nothing elsewhere. With `AGENT_MONITOR_REQUIRE_RUNC` set that is a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const POLICY: &str = "
apiVersion: agent-monitor.dev/v1alpha1
kind: AgentPolicy
metadata: {name: profile}
spec:
  variables: {UNUSED: null}
  files: [{allow: [read], paths: ['${UNUSED}']}]
  syscalls:
    - allow: ['@agent']
    - deny: [uname]
";

#[test]
fn an_exported_profile_is_taken_and_enforced_by_runc() {
    let place = std::env::temp_dir().join(format!("agent-monitor-{}-profile", std::process::id()));
    let outcome = enforced(&place);
    let _ = std::fs::remove_dir_all(&place);
    if let Err(missing) = outcome {
        assert!(std::env::var_os("AGENT_MONITOR_REQUIRE_RUNC").is_none(), "{missing}");
        println!("skipped: {missing}");
    }
}

/// What is missing here, if it is.
fn enforced(place: &Path) -> Result<(), String> {
    let profile = exported(place);
    let runc = found("runc").ok_or("runc is not installed")?;
    let busybox = found("busybox").ok_or("busybox is not installed")?;
    let container = Container { place, runc, busybox };
    container.make()?;
    let free = container.run("free", None);
    if free.stdout != b"Linux\n" {
        return Err(format!("runc starts no container here: {}", String::from_utf8_lossy(&free.stderr)));
    }
    // busybox prints what uname gave it, which is nothing where the call fails.
    let filtered = container.run("filtered", Some(&profile));
    assert_eq!(filtered.stdout, b"\n", "{}", String::from_utf8_lossy(&filtered.stderr));
    // With the call it is allowed again, so that nothing else was in the way.
    let mut with_call = profile;
    with_call["syscalls"][1]["names"].as_array_mut().expect("a list").retain(|name| name != "uname");
    with_call["syscalls"][0]["names"].as_array_mut().expect("a list").push(json!("uname"));
    let allowed = container.run("allowed", Some(&with_call));
    assert_eq!(allowed.stdout, b"Linux\n", "{}", String::from_utf8_lossy(&allowed.stderr));
    Ok(())
}

fn exported(place: &Path) -> Value {
    std::fs::create_dir_all(place).expect("directory can be made");
    let policy = place.join("profile.yaml");
    std::fs::write(&policy, POLICY).expect("file can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-monitor"));
    command.args(["policy", "export", "--seccomp", "--var", "UNUSED=/x"]).arg(&policy);
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists())
}

/// Containers that run one program.
struct Container<'a> {
    place: &'a Path,
    runc: PathBuf,
    busybox: PathBuf,
}

impl Container<'_> {
    fn bundle(&self) -> PathBuf {
        self.place.join("bundle")
    }

    /// Makes the root and the configuration that all have.
    fn make(&self) -> Result<(), String> {
        let (bundle, failed) = (self.bundle(), |error: std::io::Error| format!("make a container: {error}"));
        for directory in ["bin", "proc", "dev", "sys"] {
            std::fs::create_dir_all(bundle.join("rootfs").join(directory)).map_err(failed)?;
        }
        std::fs::copy(&self.busybox, bundle.join("rootfs/bin/busybox")).map_err(failed)?;
        let spec = Command::new(&self.runc).arg("spec").current_dir(&bundle).output().map_err(failed)?;
        if spec.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&spec.stderr).into_owned()) }
    }

    /// Runs `uname -s` under a profile.
    fn run(&self, name: &str, profile: Option<&Value>) -> Output {
        let file = self.bundle().join("config.json");
        let text = std::fs::read(&file).expect("runc has written it");
        let mut config: Value = serde_json::from_slice(&text).expect("it is JSON");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/busybox", "uname", "-s"]);
        config["linux"]["seccomp"] = profile.cloned().unwrap_or_default();
        std::fs::write(&file, config.to_string()).expect("file can be written");
        let id = format!("agent-monitor-{}-{name}", std::process::id());
        let mut runc = Command::new(&self.runc);
        runc.arg("--root").arg(self.place.join("state")).args(["run", &id]).current_dir(self.bundle());
        runc.output().expect("runc starts")
    }
}
