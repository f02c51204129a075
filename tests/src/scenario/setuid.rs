//! `bprm_creds_from_file`: programs that give ids or capabilities to whoever executes them.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::{Cycle, Outcome, Scenario, Scene, privilege, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_setuid_program_is_executed_only_with_the_privilege,
    a_program_with_capabilities_is_executed_only_with_the_privilege,
];

const NOBODY: &str = "65534";

fn program(scene: &Scene<'_>, name: &str, mode: u32) -> anyhow::Result<PathBuf> {
    let path = scene.path(name);
    std::fs::copy("/bin/busybox", &path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(path)
}

fn without_setuid_exec() -> String {
    EVERYTHING.replace("setuid-exec, ", "")
}

fn a_setuid_program_is_executed_only_with_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    let (user, group) = (program(scene, "user", 0o4755)?, program(scene, "group", 0o2755)?);
    let plain = program(scene, "plain", 0o755)?;
    let run = |path: &Path| step!("exec-as", NOBODY, path, "true");
    Cycle::new()
        .denied(run(&user), privilege("setuid-exec"))
        .denied(run(&group), privilege("setuid-exec"))
        .allowed(run(&plain))
        // Whose user and group it is gains nothing.
        .allowed(step!("exec", user, "true"))
        .run(scene, &without_setuid_exec())?;
    Cycle::new().allowed(run(&user)).allowed(run(&group)).run(scene, EVERYTHING)
}

fn a_program_with_capabilities_is_executed_only_with_the_privilege(scene: &mut Scene<'_>) -> Outcome {
    // struct vfs_cap_data, revision 2, effective: CAP_NET_RAW permitted (`include/uapi/linux/capability.h`).
    let data: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
    let path = program(scene, "capable", 0o755)?;
    let (name, value) = (CString::new(path.to_string_lossy().as_bytes())?, (&raw const data).cast());
    // SAFETY: texts end with NUL, the value is as long as is said.
    let set = unsafe { libc::setxattr(name.as_ptr(), c"security.capability".as_ptr(), value, size_of_val(&data), 0) };
    if set != 0 {
        return Err(skip(&format!("no capabilities of files here: {}", std::io::Error::last_os_error())));
    }
    let run = || step!("exec-as", NOBODY, path, "true");
    Cycle::new()
        .denied(run(), privilege("setuid-exec"))
        // Root has what the file gives.
        .allowed(step!("exec", path, "true"))
        .run(scene, &without_setuid_exec())?;
    Cycle::new().allowed(run()).run(scene, EVERYTHING)
}
