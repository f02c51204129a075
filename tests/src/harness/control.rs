//! The control socket and the address for metrics, spoken to as any client would.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::wait::limit;

/// The control socket.
pub const SOCKET: &str = "/run/agent-monitor/control.sock";
/// Where metrics and health are served.
pub const METRICS: &str = "127.0.0.1:9478";

/// Sends bytes as they are to the control socket, and gives back what comes.
pub fn raw(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(SOCKET).with_context(|| format!("connect to {SOCKET}"))?;
    stream.set_read_timeout(Some(limit()))?;
    // The daemon may answer, and close, before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // It hung up before it had read all.
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            Err(error).context("read an answer of the control socket")
        }
        _ => Ok(answer),
    }
}

/// A request to the control socket: the status and the body of the answer.
pub fn request(method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(SOCKET).with_context(|| format!("connect to {SOCKET}"))?;
    stream.set_read_timeout(Some(limit()))?;
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read the answer to {method} {path}"))?;
    parse(&answer)
}

/// A request that must succeed, with its answer.
pub fn ask(method: &str, path: &str, body: &Value) -> Result<Value> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = request(method, path, &text)?;
    if !(200..300).contains(&status) {
        bail!("{method} {path}: status {status}: {answer}");
    }
    serde_json::from_str(&answer).with_context(|| format!("{method} {path}: the answer is no JSON: {answer}"))
}

/// Whether the kernel has this hook, and its program runs.
pub fn is_attached(hook: &str) -> Result<bool> {
    let status = ask("GET", "/v1/status", &Value::Null)?;
    let hooks = status["hooks"].as_array().context("the status tells of hooks")?;
    Ok(hooks.iter().any(|row| row["name"] == hook && row["state"] == "attached"))
}

/// A path of the address for metrics: status and body.
pub fn metrics(path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(METRICS).with_context(|| format!("connect to {METRICS}"))?;
    stream.set_read_timeout(Some(limit()))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read {path}"))?;
    parse(&answer)
}

/// The sum of all values of a metric whose labels hold all of `labels`.
pub fn metric(name: &str, labels: &[&str]) -> Result<u64> {
    let (_, text) = metrics("/metrics")?;
    let mut sum = 0;
    for line in text.lines() {
        let Some((key, value)) = line.rsplit_once(' ') else { continue };
        if key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label)) {
            sum += value.parse::<f64>().with_context(|| format!("metric {line}"))? as u64;
        }
    }
    Ok(sum)
}

/// The status of an answer and its body.
pub fn parse(answer: &[u8]) -> Result<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.with_context(|| format!("no status in {head:?}"))?, body.to_owned()))
}
