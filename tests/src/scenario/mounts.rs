//! `sb_mount` and its like, `path_chroot`: mounts and roots stay as they are without the privilege, whatever the
//! capabilities.

use std::ffi::CString;
use std::path::Path;

use super::powers::each_needs;
use crate::harness::policy::ALL as EVERYTHING;
use crate::harness::{EACCES, EPERM, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};
use serde_json::json;

pub const ALL: &[Scenario] = scenarios![Node:
    mounts_and_roots_change_only_with_their_privileges,
    a_mount_made_before_binding_gets_no_place,
    what_is_mounted_stays_mounted,
];

fn text(path: &Path) -> CString {
    CString::new(path.to_string_lossy().as_bytes()).expect("a path of a scenario has no NUL")
}

/// A file system that is mounted while it lives.
struct Mounted(CString);

impl Mounted {
    fn at(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        let (path, kind) = (text(path), c"tmpfs");
        // SAFETY: texts end with NUL.
        unsafe {
            let mounted = libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null());
            anyhow::ensure!(mounted == 0, "mount {path:?}: {}", std::io::Error::last_os_error());
            // Only the top of a private mount is moved.
            libc::mount(std::ptr::null(), path.as_ptr(), std::ptr::null(), libc::MS_PRIVATE, std::ptr::null());
        }
        Ok(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the path ends with NUL.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mounts_and_roots_change_only_with_their_privileges(scene: &mut Scene<'_>) -> Outcome {
    let (top, one, two) = (scene.path("top"), scene.path("top/one"), scene.path("top/two"));
    // A private mount above, in which others may be moved.
    let _top = Mounted::at(&top)?;
    let _one = Mounted::at(&one)?;
    std::fs::create_dir(&two)?;
    each_needs(
        scene,
        vec![
            (step!("mount", two), "mount", EACCES),
            (step!("mount-kind", "cgroup2", two), "mount", EACCES),
            (step!("bind-mount", one, two), "mount", EACCES),
            (step!("remount", one), "mount", EACCES),
            (step!("make-private", one), "mount", EACCES),
            (step!("move-mount-new", one, two), "mount", EACCES),
            (step!("pivot-root"), "mount", EACCES),
            (step!("fsopen"), "mount", EPERM),
            (step!("pick-mount", one), "mount", EPERM),
            (step!("clone-mount", one), "mount", EPERM),
            (step!("open-tree"), "mount", EPERM),
            (step!("mount-attributes", one), "mount", EPERM),
            (step!("chroot", one), "chroot", EACCES),
        ],
    )
}

fn no_mount() -> String {
    let (base, rest) = EVERYTHING.split_once("capabilities:").unwrap_or((EVERYTHING, ""));
    format!("{base}  - {{deny: [mount]}}\ncapabilities:{rest}")
}

fn a_mount_made_before_binding_gets_no_place(scene: &mut Scene<'_>) -> Outcome {
    let place = scene.path("place");
    std::fs::create_dir(&place)?;
    let mut process = scene.process()?;
    let _configured = Mounted::at(&scene.path("configured"))?;
    process.works(&step!("hold-mount", "mount"), "before binding")?;
    for name in ["picked", "again"] {
        process.works(&step!("hold-pick", name, scene.path("configured")), "before binding")?;
    }
    scene.bind(&no_mount())?;
    let denied = record("move_mount", &[], json!({"name": "mount"}), "deny_rule", Some("privileges[1]"));
    scene.denied(&mut process, &step!("place-mount", "mount", place), EACCES, &denied)?;
    let denied = record("capable", &[], json!({"name": "mount"}), "deny_rule", Some("privileges[1]"));
    scene.denied(&mut process, &step!("configure-held", "picked"), EPERM, &denied)?;
    scene.unbind_after(2)?;
    process.works(&step!("configure-held", "again"), "after unbinding")?;
    process.works(&step!("place-mount", "mount", place), "after unbinding")?;
    process.works(&step!("unmount", place), "after unbinding").map(drop)
}

fn what_is_mounted_stays_mounted(scene: &mut Scene<'_>) -> Outcome {
    let place = scene.path("place");
    let mounted = Mounted::at(&place)?;
    let mut process = scene.process()?;
    scene.bind(&no_mount())?;
    let denied = record("sb_umount", &[], json!({"name": "mount"}), "deny_rule", Some("privileges[1]"));
    scene.denied(&mut process, &step!("unmount", place), EACCES, &denied)?;
    scene.unbind_after(1)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    anyhow::ensure!(mounts.contains(&*place.to_string_lossy()), "{} is not mounted any more", place.display());
    scene.bind(EVERYTHING)?;
    process.works(&step!("unmount", place), "bound, with the privilege")?;
    drop(mounted);
    scene.unbind_after(0)
}
