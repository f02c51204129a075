//! `canary`: the child that the self-test watches. It goes into its cgroup, and for each line on standard input tries one
//! operation of each class, and says what became of it.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::net::{AddressFamily, SocketType, connect, socket};

use super::enter::join;
use crate::cli::Canary;

/// The discard service: nobody needs to listen, because nothing is sent.
const PORT: u16 = 9;

/// Tries until standard input ends.
pub fn canary(options: &Canary) -> ExitCode {
    if options.leave {
        return ExitCode::SUCCESS;
    }
    match rounds(&options.cgroup) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: canary: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rounds(cgroup: &Path) -> io::Result<()> {
    // Both are resolved before this process is bound; what is tried later is on the same file.
    let own = std::env::current_exe()?;
    let (input, mut output) = (io::stdin().lock(), io::stdout().lock());
    join(cgroup)?;
    for line in input.lines() {
        line?;
        writeln!(output, "file {}", word(&File::open(&own).map(drop)))?;
        writeln!(output, "exec {}", word(&execute(&own)))?;
        writeln!(output, "network {}", word(&reach()))?;
        writeln!(output, "end")?;
        output.flush()?;
    }
    Ok(())
}

fn execute(program: &Path) -> io::Result<()> {
    let status = Command::new(program).args(["canary", "--leave", "--cgroup", "/"]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

fn reach() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)) {
        // Where the loopback interface is down: the verdict came before the route was looked for.
        Err(rustix::io::Errno::NETUNREACH) => Ok(()),
        other => Ok(other?),
    }
}

fn word(result: &io::Result<()>) -> String {
    match result {
        Ok(()) => "allowed".to_owned(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => "denied".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}
