//! Shows the machine the host's root directory, read-only, through virtiofsd.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// Where distributions put virtiofsd: QEMU's own of before 8.0, and the later one in Rust.
const PLACES: [&str; 3] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"];
/// How long virtiofsd may take to open its socket.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running virtiofsd; it ends when this is dropped.
#[derive(Debug)]
pub struct Share {
    virtiofsd: Child,
    socket: PathBuf,
}

/// Finds virtiofsd on this machine.
pub fn program() -> Option<PathBuf> {
    let known = PLACES.iter().map(PathBuf::from).find(|path| process::is_executable(path));
    known.or_else(|| process::find("virtiofsd"))
}

impl Share {
    /// Starts virtiofsd with its socket in `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let program = program().context("virtiofsd is not installed; run `cargo xtask setup`")?;
        let socket = dir.join("share");
        let log = dir.join("virtiofsd.log");
        let errors = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = process::dies_with_us(&program)?;
        command.arg(format!("--socket-path={}", socket.display()));
        command.args(options(&program)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let virtiofsd = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let mut share = Self { virtiofsd, socket };
        let started = Instant::now();
        while !share.socket.exists() {
            let ended = share.virtiofsd.try_wait().context("wait for virtiofsd")?;
            if ended.is_some() || started.elapsed() > START_LIMIT {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{} opened no socket (it needs root): {}", program.display(), said.trim());
            }
            // Not in place of the condition: only so that looking for the socket is no busy loop.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(share)
    }

    /// QEMU's arguments for the share. Its memory is shared with virtiofsd.
    pub fn arguments(&self, memory_mib: u32) -> Vec<String> {
        [
            "-object",
            &format!("memory-backend-memfd,id=memory,size={memory_mib}M,share=on"),
            "-numa",
            "node,memdev=memory",
            "-chardev",
            &format!("socket,id=share,path={}", self.socket.display()),
            "-device",
            "vhost-user-fs-pci,chardev=share,tag=host",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

/// Options of the program in Rust, or of QEMU's own one.
fn options(program: &Path) -> Result<&'static [&'static str]> {
    let help = process::output(Command::new(program).arg("--help"), "ask virtiofsd for its options")?;
    Ok(if help.contains("--shared-dir") {
        // Mount points would be objects that the machine's overlay refuses.
        &["--shared-dir=/", "--cache=always", "--sandbox=chroot", "--no-announce-submounts"]
    } else {
        &["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]
    })
}

impl Drop for Share {
    fn drop(&mut self) {
        // It ends by itself when QEMU does; this is for the case that QEMU never came.
        let _ = self.virtiofsd.kill();
        let _ = self.virtiofsd.wait();
    }
}
