//! Telling the service manager (systemd's `sd_notify` protocol: one datagram to the socket that it names).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager, where there is one.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "cannot notify the service manager");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let name = format!("agent-monitor-{}-notify", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name is valid");
        let receiver = UnixDatagram::bind_addr(&address).expect("socket can be bound");
        send(OsStr::new(&format!("@{name}")), "READY=1").expect("is received");
        let mut buffer = [0; 16];
        let length = receiver.recv(&mut buffer).expect("was sent");
        assert_eq!(buffer.get(..length), Some(&b"READY=1"[..]));
        let path = std::env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        let receiver = UnixDatagram::bind(&path).expect("socket can be bound");
        send(path.as_os_str(), "STOPPING=1").expect("is received");
        assert_eq!(receiver.recv(&mut buffer).expect("was sent"), 10);
        std::fs::remove_file(path).expect("socket can be removed");
    }
}
