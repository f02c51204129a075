//! The other end of the control socket: what `status`, `agents`, `events` and `run` speak.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::Problem;

/// How long to wait for a connection and for the head of an answer. Longer than the daemon lets a request wait.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long to wait for a daemon to take the connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer, except a stream of events.
const ANSWER_BYTES: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is at the path of the socket.
    #[error("no daemon runs here: there is no socket {0}; start one with: agent-monitor daemon")]
    NoSocket(PathBuf),
    /// The socket is there, and nobody answers.
    #[error(
        "the control socket {path} is there, but no daemon answers: {reason}; start the daemon, or remove the socket if none shall run"
    )]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// Who runs this may not connect.
    #[error(
        "the control socket {0} is for root, and for the members of the group that the setting control_group names"
    )]
    Forbidden(PathBuf),
    /// The daemon refuses.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the daemon says.
        message: String,
    },
}

/// Speaks with the daemon at one socket, a connection for each request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon at `socket`. Nothing is connected yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends `body` to `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.no_answer(error))?;
        self.call(Method::POST, path, body.into()).await
    }

    /// Puts `body` at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.no_answer(error))?;
        self.call(Method::PUT, path, body.into()).await
    }

    /// Deletes `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// Follows the stream of lines at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(Lines { body: response.into_body(), buffer: Vec::new() });
        }
        Err(self.refusal(response).await)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.no_answer(format!("its answer is not understood: {error}")))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = match tokio::time::timeout(CONNECT_PATIENCE, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClientError::NoSocket(self.socket.clone()));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Forbidden(self.socket.clone()));
            }
            Ok(Err(error)) => return Err(self.no_answer(error)),
            Err(_) => return Err(self.no_answer("it does not take connections")),
        };
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the connection; its error also reaches who waits for the answer.
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "agent-monitor")
                .header("content-type", "application/json")
                .body(Full::new(body));
            let request = request.expect("method, path and headers are ours and valid");
            sender.send_request(request).await
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.no_answer(error)),
            Err(_) => Err(self.no_answer("it did not answer in time")),
        }
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status().as_u16();
        match self.collect(response).await {
            Ok(bytes) => {
                let problem = serde_json::from_slice::<Problem>(&bytes);
                let message = problem
                    .map_or_else(|_| format!("the daemon answers with status {status}"), |problem| problem.error);
                ClientError::Refused { status, message }
            }
            Err(error) => error,
        }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect();
        match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) => Err(self.no_answer(error)),
            Err(_) => Err(self.no_answer("its answer did not end in time")),
        }
    }

    fn no_answer(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::NoAnswer { path: self.socket.clone(), reason: reason.to_string() }
    }
}

/// A stream of lines.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line without its line feed; `None` at the end. The future may be dropped while it waits.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(None),
            }
        }
    }
}

/// A name as a part of a path, with everything else than letters, digits and a few signs encoded.
pub fn encode(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_part_of_a_path() {
        assert_eq!(encode("coding-agent-3f2a"), "coding-agent-3f2a");
        assert_eq!(encode("a/b?c=d é"), "a%2Fb%3Fc%3Dd%20%C3%A9");
    }

    #[tokio::test]
    async fn a_missing_and_a_dead_socket_are_told_apart() {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}-client.sock", std::process::id()));
        let client = Client::new(&path);
        assert!(matches!(client.get::<()>("/").await, Err(ClientError::NoSocket(_))));
        drop(std::os::unix::net::UnixListener::bind(&path).expect("socket can be made"));
        assert!(matches!(client.get::<()>("/").await, Err(ClientError::NoAnswer { .. })));
        std::fs::remove_file(path).expect("socket can be removed");
    }
}
