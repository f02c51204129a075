//! A request over TLS to the one server that the policy allows, with a certificate that was made for it.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::job::{self, Job};
use crate::harness::wait::limit;
use crate::harness::{Outcome, Scenario};
use crate::scenarios;

pub const ALL: &[Scenario] = scenarios![Work:
    an_allowed_server_is_asked_over_tls,
];

const PORT: u16 = 8443;

/// A server that ends with the scenario.
struct Server(Child);

impl Server {
    /// Starts the server and waits until it takes connections.
    fn start(mut command: Command) -> Result<Self> {
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start openssl")?);
        let deadline = Instant::now() + limit();
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            if Instant::now() >= deadline {
                bail!("openssl s_server takes no connection on port {PORT}");
            }
            // Only so that asking is no busy loop.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `/etc/hosts` in which `localhost` has two addresses, as on most machines; as it was, at the end.
struct Hosts(Vec<u8>);

impl Hosts {
    const PATH: &str = "/etc/hosts";

    fn set() -> Result<Self> {
        let before = fs::read(Self::PATH).context("read /etc/hosts")?;
        fs::write(Self::PATH, "127.0.0.1 localhost\n::1 localhost\n").context("write /etc/hosts")?;
        Ok(Self(before))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, &self.0);
    }
}

fn an_allowed_server_is_asked_over_tls() -> Outcome {
    let script = "\
import ssl, urllib.request
trust = ssl.create_default_context()
trust.load_verify_locations('cert.pem')
for host in ['127.0.0.1', 'localhost']:
    with urllib.request.urlopen(f'https://{host}:8443/', context=trust) as answer:
        print(answer.status, len(answer.read()) > 100)
";
    let job = Job::new("coding-agent", &["python3", "openssl"])?
        .file("ask.py", script)?
        .before(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem \
            -days 2 -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' 2>&1",
        )?
        .variable("ALLOWED_PORT", &PORT.to_string());
    let _hosts = Hosts::set()?;
    let mut server = job::clean("openssl");
    server.args(["s_server", "-quiet", "-www", "-cert", "cert.pem", "-key", "key.pem", "-accept", &PORT.to_string()]);
    let _server = Server::start(server)?;
    let said = job
        .denied("network", "::1", "no_rule", "localhost has this address too; the client goes on to the allowed one")
        .denied(
            "network",
            "127.0.0.1",
            "no_rule",
            "the resolver connects UDP sockets, to sort addresses by their routes",
        )
        .run("python3 ask.py")?;
    ensure!(said == "200 True\n200 True\n", "it printed {said:?}");
    Ok(())
}
