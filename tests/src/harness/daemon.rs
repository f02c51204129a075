//! The daemon, started for all scenarios together because loading its programs takes seconds.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::wait::{limit, ready};

/// Where the scenarios keep what is theirs.
pub const PLACE: &str = "/run/scenarios";

/// A directory, mostly in [`PLACE`], that is gone at the end.
pub struct Directory(pub PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon that runs, or ran.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts the daemon with these options and waits until it says that it is ready.
    pub fn start(options: &[&str]) -> Result<Self> {
        Self::start_build("agent-monitor", options)
    }

    /// As [`Self::start`], with a program of another build.
    pub fn start_build(program: &str, options: &[&str]) -> Result<Self> {
        Starting::begin(program, options)?.ready()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end and waits for that, to start another one in its place.
    pub fn end(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        Ok(self.child.wait()?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Starts another one in the place of one that has ended.
    pub fn start_again(&mut self, options: &[&str]) -> Result<()> {
        *self = Self::start(options)?;
        Ok(())
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Starts another one, if this one has ended.
    pub fn ensure_runs(&mut self) -> Result<()> {
        if self.runs()? { Ok(()) } else { self.start_again(&[]) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes two numbers; the child is not waited for yet, so its id is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Stops it where it is, and waits until it stands still.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        // SAFETY: nothing is asked about how it stopped.
        unsafe { libc::waitpid(self.pid().cast_signed(), std::ptr::null_mut(), libc::WUNTRACED) };
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Asks it to end and waits for that.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        Ok(self.child.wait()?)
    }
}

/// A daemon that has not said that it is ready.
#[derive(Debug)]
pub struct Starting {
    /// The daemon.
    pub daemon: Daemon,
    socket: UnixDatagram,
}

impl Starting {
    /// Starts a daemon of this build and does not wait.
    pub fn begin(program: &str, options: &[&str]) -> Result<Self> {
        fs::create_dir_all(PLACE)?;
        let notify = Path::new(PLACE).join("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).context("bind the notification socket")?;
        let log = File::create(log_path()).context("make the daemon's log")?;
        let mut command = Command::new(program);
        command.arg("daemon").args(options).env("NOTIFY_SOCKET", &notify).stderr(log);
        let child = command.spawn().with_context(|| format!("start {program} daemon"))?;
        Ok(Self { daemon: Daemon { child }, socket })
    }

    /// Waits until it says that it is ready.
    pub fn ready(self) -> Result<Daemon> {
        let Self { daemon, socket } = self;
        let deadline = Instant::now() + 4 * limit();
        // It closes nothing that we could wait for when it dies, so its end is looked for between short waits.
        loop {
            if ready(socket.as_fd(), libc::POLLIN, Instant::now() + Duration::from_millis(200)) {
                let mut text = [0; 64];
                let length = socket.recv(&mut text)?;
                if text.get(..length).is_some_and(|text| text.starts_with(b"READY=1")) {
                    return Ok(daemon);
                }
            }
            if !Path::new("/proc").join(daemon.pid().to_string()).join("exe").exists() || Instant::now() >= deadline {
                bail!("the daemon does not get ready:\n{}", log_text());
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes what guards the node without a daemon, and gives what was said about it.
pub fn uninstall() -> Result<String> {
    let output = Command::new("agent-monitor").args(["daemon", "--uninstall"]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "daemon --uninstall ended with {}: {text}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the state knows of agents, each with its file.
pub fn agent_states() -> Result<Vec<(PathBuf, serde_json::Value)>> {
    let mut states = Vec::new();
    for entry in fs::read_dir("/var/lib/agent-monitor/agents").context("read the state")? {
        let path = entry?.path();
        let state = serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("read {}", path.display()))?;
        states.push((path, state));
    }
    Ok(states)
}

/// What the daemon wrote on standard error.
pub fn log_text() -> String {
    fs::read_to_string(log_path()).unwrap_or_default()
}

fn log_path() -> std::path::PathBuf {
    Path::new(PLACE).join("daemon.log")
}
