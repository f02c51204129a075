//! One QEMU process and what talks to it: its command line, its ports as streams of bytes, its end. Judges nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::{Accel, Root, virtiofs::Share};
use crate::process;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// How its instructions run.
    pub accel: Accel,
    /// How many processors it has.
    pub cpus: u32,
    /// How much memory it has.
    pub memory_mib: u32,
    /// What its root directory is made of.
    pub root: Root,
    /// The active security modules, for `lsm=`.
    pub lsm: String,
    /// More words for the kernel's command line.
    pub append: String,
}

/// Where the command's standard output goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    /// To our own.
    #[default]
    Shown,
    /// To our own, whole when the machine has ended: others run beside it.
    Whole,
    /// Into the report; standard error is shown.
    Kept,
    /// Nowhere, and standard error neither.
    Hidden,
}

/// What happens in a machine, in the order in which we hear of it.
#[derive(Debug)]
pub enum Happening {
    /// A line on the kernel's console.
    Console(String),
    /// A line of boot.sh on the status port.
    Status(String),
    /// What the command printed, where that is kept.
    Output(Vec<u8>),
    /// A stream ended, because the machine did.
    Ended,
    /// The user asked us to stop.
    Interrupted,
}

/// A running machine; it ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    share: Option<Share>,
    log: PathBuf,
    readers: Vec<JoinHandle<()>>,
}

/// The machine's ports, in the order of their numbers; boot.sh knows them by number.
const PORTS: [&str; 3] = ["status", "out", "err"];
/// How many streams say `Happening::Ended` at the end: the console and the ports.
pub const STREAMS: usize = 1 + PORTS.len();

impl Machine {
    /// Starts a machine. `dir` is for its sockets.
    pub fn start(
        hardware: &Hardware,
        kernel: &Path,
        initramfs: &Path,
        dir: &Path,
        output: Output,
        happenings: &Sender<Happening>,
    ) -> Result<Self> {
        let share = match hardware.root {
            Root::Host => Some(Share::start(dir)?),
            Root::Minimal => None,
        };
        let mut command = process::dies_with_us(&process::need("qemu-system-x86_64")?)?;
        // The user's QEMU configuration and default devices would make machines differ.
        command.args(["-M", "q35", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(hardware.accel.arguments());
        command.args(["-smp", &hardware.cpus.to_string(), "-m", &hardware.memory_mib.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", &command_line(hardware)]);
        command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        command.args(["-device", "virtio-serial-pci"]);
        if let Some(share) = &share {
            command.args(share.arguments(hardware.memory_mib));
        }
        let mut ports = Vec::new();
        for (index, name) in PORTS.iter().enumerate() {
            let path = dir.join(name);
            ports.push(UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?);
            command.args(["-chardev", &format!("socket,id={name},path={}", path.display())]);
            command.args(["-device", &format!("virtserialport,chardev={name},name={name},nr={}", index + 1)]);
        }
        let log = dir.join("qemu.log");
        let errors = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = command.spawn().context("start qemu-system-x86_64")?;
        let console = qemu.stdout.take().context("qemu's standard output is a pipe")?;

        let mut machine = Self { qemu, share, log, readers: Vec::new() };
        let paths = PORTS.map(|name| dir.join(name));
        let sender = happenings.clone();
        machine.read(happenings, move || {
            lines(console, &sender, Happening::Console);
            // QEMU may have ended before it connected to its ports; whoever waits there must not wait for ever.
            paths.iter().for_each(|path| drop(UnixStream::connect(path)));
        });
        for (name, port) in PORTS.into_iter().zip(ports) {
            let sender = happenings.clone();
            machine.read(happenings, move || {
                let Ok((stream, _)) = port.accept() else {
                    return;
                };
                match name {
                    "status" => lines(stream, &sender, Happening::Status),
                    _ if output == Output::Hidden => pass(stream, std::io::sink()),
                    "out" if output == Output::Kept => pass(stream, Keep(&sender)),
                    "out" => pass(stream, std::io::stdout()),
                    _ => pass(stream, std::io::stderr()),
                }
            });
        }
        Ok(machine)
    }

    fn read(&mut self, happenings: &Sender<Happening>, work: impl FnOnce() + Send + 'static) {
        let happenings = happenings.clone();
        self.readers.push(std::thread::spawn(move || {
            work();
            // Nobody listens any more when the machine was given up.
            let _ = happenings.send(Happening::Ended);
        }));
    }

    /// What QEMU itself complained about.
    pub fn complaints(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the machine at once; its streams end with it.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        let _ = self.qemu.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        drop(self.share.take());
    }
}

fn command_line(hardware: &Hardware) -> String {
    let root = match hardware.root {
        Root::Minimal => "minimal",
        Root::Host => "host",
    };
    // loglevel 5 shows warnings and worse. A kernel in trouble stops at once, so that its words are the last ones.
    format!("console=ttyS0 loglevel=5 oops=panic panic=-1 lsm={} machine.root={root} {}", hardware.lsm, hardware.append)
}

fn lines(stream: impl Read, happenings: &Sender<Happening>, make: fn(String) -> Happening) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let _ = happenings.send(make(String::from_utf8_lossy(&line).trim_end().to_owned()));
        line.clear();
    }
}

/// Makes a happening of each piece of the command's output.
struct Keep<'a>(&'a Sender<Happening>);

impl Write for Keep<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(Happening::Output(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn pass(mut stream: impl Read, mut out: impl Write) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        // Our reader may be gone (`| head`); the machine runs on to its end all the same.
        let _ = out.write_all(&buffer[..count]).and_then(|()| out.flush());
    }
}
