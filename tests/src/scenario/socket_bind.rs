//! `socket_bind` and `socket_listen`: local addresses.

use super::socket_connect::internet;
use crate::harness::{Cycle, Outcome, Scenario, Scene, record};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    denied_bind_returns_eacces_and_is_recorded,
    a_listen_without_bind_is_judged_on_the_unspecified_address,
    the_unspecified_address_is_denied_where_any_address_of_the_port_is,
    listening_at_every_address_needs_both_families,
];

const CREATE: &str = "network:\n  - {allow: [create], sockets: [inet, inet6]}\n";

fn denied(hook: &str, protocol: &str, address: &str, port: u16) -> serde_json::Value {
    record(hook, &["listen"], internet(protocol, address, port), "no_rule", None)
}

fn denied_bind_returns_eacces_and_is_recorded(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!(
        "{CREATE}  - {{allow: [listen], at: {{addresses: [\"127.0.0.1\"], ports: [20080], protocols: [tcp]}}}}\n"
    );
    let bind = |protocol: &str, address: &str, port: u16| denied("socket_bind", protocol, address, port);
    Cycle::new()
        .allowed(step!("bind", "tcp", "127.0.0.1:20080"))
        .allowed(step!("listen", "tcp", "127.0.0.1:20080"))
        .denied(step!("bind", "tcp", "127.0.0.1:20081"), bind("tcp", "127.0.0.1", 20081))
        .denied(step!("listen", "tcp", "127.0.0.2:20080"), bind("tcp", "127.0.0.2", 20080))
        .denied(step!("bind", "udp", "127.0.0.1:20080"), bind("udp", "127.0.0.1", 20080))
        .denied(step!("bind", "tcp", "127.0.0.1:0"), bind("tcp", "127.0.0.1", 0))
        .denied(step!("bind", "tcp", "0.0.0.0:20080"), bind("tcp", "0.0.0.0", 20080))
        .denied(step!("bind", "tcp", "[::]:20080"), bind("tcp", "::", 20080))
        .denied(step!("bind", "tcp", "[::1]:20080"), bind("tcp", "::1", 20080))
        .run(scene, &spec)
}

fn a_listen_without_bind_is_judged_on_the_unspecified_address(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!("{CREATE}  - {{allow: [listen], at: {{addresses: [\"127.0.0.0/8\", \"::1\"]}}}}\n");
    Cycle::new()
        .denied(step!("listen-unbound", "4"), denied("socket_listen", "tcp", "0.0.0.0", 0))
        .denied(step!("listen-unbound", "6"), denied("socket_listen", "tcp", "::", 0))
        .run(scene, &spec)
}

fn the_unspecified_address_is_denied_where_any_address_of_the_port_is(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!(
        "{CREATE}  - {{allow: [listen], at: {{addresses: [\"0.0.0.0/0\", \"::/0\"]}}}}\n  - {{deny: [listen], at: {{addresses: [\"10.0.0.0/8\"], ports: [20082]}}}}\n"
    );
    let rule = |address: &str| {
        record("socket_bind", &["listen"], internet("tcp", address, 20082), "deny_rule", Some("network[2]"))
    };
    Cycle::new()
        .denied(step!("bind", "tcp", "0.0.0.0:20082"), rule("0.0.0.0"))
        .allowed(step!("bind", "tcp", "0.0.0.0:20083"))
        .allowed(step!("bind", "tcp", "127.0.0.1:20082"))
        .run(scene, &spec)
}

/// A socket at `::` takes what comes over IPv4, too.
fn listening_at_every_address_needs_both_families(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!("{CREATE}  - {{allow: [listen], at: {{addresses: [\"::\"], ports: [20084]}}}}\n");
    Cycle::new()
        .denied(step!("bind", "tcp", "[::]:20084"), denied("socket_bind", "tcp", "0.0.0.0", 20084))
        .denied(step!("bind", "udp", "[::]:20084"), denied("socket_bind", "udp", "0.0.0.0", 20084))
        .run(scene, &spec)?;
    let spec = spec.replace("\"::\"", "\"::\", \"0.0.0.0\"");
    Cycle::new()
        .allowed(step!("bind", "tcp", "[::]:20084"))
        .allowed(step!("bind", "udp", "[::]:20084"))
        .run(scene, &spec)
}
