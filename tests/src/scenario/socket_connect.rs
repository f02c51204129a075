//! `socket_connect`: connecting to internet addresses.

use serde_json::{Value, json};

use crate::harness::{Cycle, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    denied_connect_returns_eacces_and_is_recorded,
    an_address_is_the_same_in_every_notation,
];

/// The object of an internet address.
pub fn internet(protocol: &str, address: &str, port: u16) -> Value {
    let family = if address.contains(':') { "inet6" } else { "inet" };
    json!({"family": family, "protocol": protocol, "address": address, "port": port})
}

fn denied_connect_returns_eacces_and_is_recorded(scene: &mut Scene<'_>) -> Outcome {
    let listening = |address: &str| std::net::TcpListener::bind(address);
    let (first, second, third) = (listening("127.0.0.1:0")?, listening("127.0.0.2:0")?, listening("[::1]:0")?);
    let (open, other, v6) = (first.local_addr()?, second.local_addr()?, third.local_addr()?);
    let spec = format!(
        "network:\n  - {{allow: [create], sockets: [inet, inet6]}}\n  - {{allow: [connect], to: {{addresses: [\"127.0.0.1\"], ports: [{}], protocols: [tcp]}}}}\n",
        open.port()
    );
    let denied = |protocol: &str, to: std::net::SocketAddr| {
        record("socket_connect", &["connect"], internet(protocol, &to.ip().to_string(), to.port()), "no_rule", None)
    };
    let text = |to: std::net::SocketAddr| to.to_string();
    Cycle::new()
        .allowed(step!("connect", "tcp", text(open)))
        .denied(step!("connect", "tcp", text(other)), denied("tcp", other))
        .denied(step!("connect", "tcp", text(v6)), denied("tcp", v6))
        .denied(step!("connect", "udp", text(open)), denied("udp", open))
        .run(scene, &spec)
}

fn an_address_is_the_same_in_every_notation(scene: &mut Scene<'_>) -> Outcome {
    let spec = r#"
network:
  - {allow: [create], sockets: [inet, inet6]}
  - {allow: [connect], to: {addresses: ["127.0.0.2", "::2"], protocols: [udp]}}
"#;
    let denied = |address: &str| record("socket_connect", &["connect"], internet("udp", address, 9), "no_rule", None);
    Cycle::new()
        .allowed(step!("connect", "udp", "127.0.0.2:9"))
        .allowed(step!("connect", "udp", "[::ffff:127.0.0.2]:9"))
        .denied(step!("connect", "udp", "[::ffff:127.0.0.1]:9"), denied("127.0.0.1"))
        .denied(step!("connect", "udp", "0.0.0.0:9"), denied("127.0.0.1"))
        .denied(step!("connect", "udp", "[::]:9"), denied("::1"))
        .denied(step!("connect", "udp", "[::1]:9"), denied("::1"))
        .run(scene, spec)
}
