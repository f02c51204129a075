//! What can be done with files beside reading, writing and naming them: attributes that hold data, watches, message
//! queues, subvolumes.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use crate::harness::{Cycle, EPERM, Mount, Outcome, Process, Scenario, Scene, privilege, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    an_attribute_of_a_denied_file_is_not_read,
    attributes_for_the_kernel_need_their_capability,
    a_directory_is_watched_only_by_who_may_read_it,
    a_message_queue_is_made_and_removed_only_by_a_rule,
    subvolumes_need_their_privilege,
];

/// Does a step as an outsider, whatever comes of it.
fn outside(step: &str, word: impl AsRef<OsStr>) {
    let done = Command::new("/proc/self/exe").args(["once", step]).arg(word).output();
    assert!(done.is_ok(), "{step} was not started: {done:?}");
}

fn an_attribute_of_a_denied_file_is_not_read(scene: &mut Scene<'_>) -> Outcome {
    let (file, free) = (scene.file("file", "f"), scene.file("free", "f"));
    for file in [&file, &free] {
        outside("setxattr", file);
        outside("setacl", file);
    }
    let denied = || record("inode_getxattr", &["read"], json!({"path": file}), "no_rule", None);
    // The kernel shows attributes of root to nobody else.
    let spec = "files:\n  - {allow: [read], paths: [\"$W/free\"]}\n  - {allow: [write], paths: [\"$W/file\"]}\n\
                capabilities:\n  - {allow: [CAP_SYS_ADMIN]}\n";
    Cycle::new()
        .allowed(step!("hold", "file", file, "w"))
        .denied(step!("getxattr", file), denied())
        .denied(step!("fgetxattr", "file"), denied())
        .allowed(step!("getxattr", free))
        // As a FUSE server may call its own.
        .denied(step!("getxattr-of-system", file), denied())
        .otherwise(libc::EOPNOTSUPP)
        // Who may do what, as stat(2) tells it.
        .allowed(step!("getacl", file))
        .run(scene, spec)
}

/// Kernels before 6.11 do not ask for it any more once `bpf` is among their security modules.
fn attributes_for_the_kernel_need_their_capability(scene: &mut Scene<'_>) -> Outcome {
    let file = scene.file("file", "f");
    std::os::unix::fs::chown(&file, Some(1), Some(1))?;
    let steps = [
        step!("setxattr-as-user", file, "security.scenario"),
        step!("removexattr-as-user", file, "security.capability"),
    ];
    let (mut process, mut outsider) = (scene.process()?, Process::start()?);
    let capabilities = "capabilities:\n  - {allow: [CAP_SETUID, CAP_SETGID]}\n";
    scene.bind(&format!("files:\n  - {{allow: [set-attributes], paths: [\"$W/**\"]}}\n{capabilities}"))?;
    for step in &steps {
        process.expect(step, EPERM, "bound, by a rule")?;
        outsider.expect(step, EPERM, "as an outsider")?;
    }
    scene.unbind_after(0)
}

fn a_directory_is_watched_only_by_who_may_read_it(scene: &mut Scene<'_>) -> Outcome {
    let (file, closed) = (scene.file("closed/file", "f"), scene.path("closed"));
    let open = scene.path("open");
    scene.file("open/file", "f");
    let denied = |path: &std::path::Path| record("path_notify", &["read"], json!({"path": path}), "no_rule", None);
    let spec = "files:\n  - {allow: [read], paths: [\"$W/open{,/**}\"]}\ncapabilities:\n  - {allow: [CAP_SYS_ADMIN]}\n";
    Cycle::new()
        .denied(step!("watch", closed), denied(&closed))
        .denied(step!("watch", file), denied(&file))
        .denied(step!("watch-by-group", closed), denied(&closed))
        .allowed(step!("watch", open))
        .allowed(step!("watch-by-group", open))
        .run(scene, spec)?;
    // For more than a file, or for more than looking on.
    let denied = |hook: &str| record(hook, &[], json!({"name": "mount"}), "no_rule", None);
    let steps = || ["watch-all", "watch-mount", "watch-to-decide"].map(|name| step!(name, open));
    let cycle = steps().into_iter().fold(Cycle::new(), |cycle, step| cycle.denied(step, denied("path_notify")));
    // A file system in memory can't be frozen, which the kernel sees after us.
    cycle
        .denied(step!("freeze", open), denied("file_ioctl"))
        .otherwise(libc::EOPNOTSUPP)
        // Nor are there encrypted files in memory.
        .denied(step!("add-encryption-key", open), denied("file_ioctl"))
        .otherwise(libc::ENOTTY)
        .denied(step!("remove-encryption-key", open), denied("file_ioctl"))
        .otherwise(libc::ENOTTY)
        .run(scene, spec)?;
    let spec = format!("{spec}privileges:\n  - {{allow: [mount]}}\n");
    steps().into_iter().fold(Cycle::new(), Cycle::allowed).run(scene, &spec)
}

fn a_message_queue_is_made_and_removed_only_by_a_rule(scene: &mut Scene<'_>) -> Outcome {
    const NAME: &str = "/scenario-queue";
    let queue = |scene: &mut Scene<'_>, object: &str, spec: &str| -> Result<()> {
        let denied = |hook: &str, access: &str| record(hook, &[access], json!({"path": object}), "no_rule", None);
        let (gone, there) = (|| outside("queue-unlink", NAME), || outside("queue-open", NAME));
        Cycle::new()
            .denied_after(gone, step!("queue-open", NAME), denied("inode_create", "create"))
            .denied_after(there, step!("queue-unlink", NAME), denied("inode_unlink", "delete"))
            .run(scene, "{}")?;
        Cycle::new()
            .allowed_after(gone, step!("queue-open", NAME))
            .allowed_after(there, step!("queue-unlink", NAME))
            .run(scene, spec)
    };
    // A flag that exec sets makes no exec of it.
    let opened = record("file_open", &["read", "write"], json!({"path": "anon:other"}), "no_rule", None);
    outside("queue-open", NAME);
    Cycle::new()
        .denied(step!("queue-open-to-execute", NAME), opened)
        .run(scene, "exec:\n  - {allow: [\"anon:other\"]}\n")?;
    outside("queue-unlink", NAME);
    // The kernel asks for the capability, and goes on without it.
    let nameless = "files:\n  - {allow: [read, write, create, delete], paths: [\"anon:other\"]}\n\
                    capabilities:\n  - {allow: [CAP_SYS_RESOURCE]}\n";
    queue(scene, "anon:other", nameless)?;
    // Where the queues are shown, by their paths there; open ones are no names there.
    let shown = scene.path("queues");
    std::fs::create_dir(&shown)?;
    let words = ["-t", "mqueue", "mqueue"].map(OsStr::new);
    let _mount = Mount::with(&[words.as_slice(), &[shown.as_os_str()]].concat(), &shown)?;
    let path = shown.join(&NAME[1..]).display().to_string();
    let named = "files:\n  - {allow: [read, write], paths: [\"anon:other\"]}\n  - {allow: [create, delete], paths: [\"$W/queues/*\"]}\n\
                 capabilities:\n  - {allow: [CAP_SYS_RESOURCE]}\n";
    queue(scene, &path, named)
}

/// The file system here has none, and opens nothing by handles so, which it says only to who may ask.
fn subvolumes_need_their_privilege(scene: &mut Scene<'_>) -> Outcome {
    // XFS_IOC_{OPEN,READLINK,ATTRLIST,ATTRMULTI}_BY_HANDLE; CIFS_IOC_NOTIFY{,_INFO}.
    const OTHERS: [u32; 6] = [0xc038_586b, 0xc038_586c, 0x4058_587a, 0x4048_587b, 0x4005_cf09, 0xc009_cf0b];
    let (place, read) = (scene.workspace.clone(), "files:\n  - {allow: [read], paths: [\"$W\"]}\n");
    let others = OTHERS.map(|number| step!("control", place, number.to_string()));
    let mut cycle = Cycle::new()
        .allowed(step!("hold", "place", place, "r,dir"))
        .denied(step!("subvolume", "place"), privilege("subvolumes"))
        .otherwise(libc::ENOTTY);
    for step in others.clone() {
        cycle = cycle.denied(step, privilege("subvolumes")).otherwise(libc::ENOTTY);
    }
    // FIDEDUPERANGE, which directories have not.
    let same = || step!("control", scene.workspace, 0xc018_9436_u32.to_string());
    cycle = cycle.denied(same(), privilege("subvolumes")).otherwise(libc::EISDIR);
    let last = same();
    cycle.run(scene, read)?;
    let mut cycle = Cycle::new()
        .allowed(step!("hold", "place", place, "r,dir"))
        .allowed(step!("subvolume", "place"))
        .otherwise(libc::ENOTTY);
    for step in others {
        cycle = cycle.allowed(step).otherwise(libc::ENOTTY);
    }
    cycle = cycle.allowed(last).otherwise(libc::EISDIR);
    cycle.run(scene, &format!("{read}privileges:\n  - {{allow: [subvolumes]}}\n"))
}
