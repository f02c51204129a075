//! `socket_create`: the gate of every family.

use serde_json::json;

use super::socket_connect::internet;
use crate::harness::{Cycle, Outcome, Process, Scenario, Scene, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_socket_of_a_family_that_no_rule_names_is_not_made,
    sctp_reaches_and_takes_no_denied_address_by_its_options,
];

/// Family, type, protocol and the word for it.
const SOCKETS: &[(i32, i32, i32, &str)] = &[
    (libc::AF_INET, libc::SOCK_STREAM, 0, "inet"),
    (libc::AF_INET, libc::SOCK_DGRAM, 0, "inet"),
    (libc::AF_INET, libc::SOCK_STREAM, 262, "inet"),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP, "inet-raw"),
    (libc::AF_INET, libc::SOCK_SEQPACKET, 0, "inet-raw"),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_SCTP, "inet6-raw"),
    (libc::AF_INET6, libc::SOCK_STREAM, 0, "inet6"),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW, "inet-raw"),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP, "inet-raw"),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6, "inet6-raw"),
    (libc::AF_UNIX, libc::SOCK_STREAM, 0, "unix"),
    (libc::AF_NETLINK, libc::SOCK_RAW, 0, "netlink-route"),
    (libc::AF_NETLINK, libc::SOCK_RAW, 9, "netlink"),
    (libc::AF_PACKET, libc::SOCK_RAW, 0, "packet"),
    (libc::AF_VSOCK, libc::SOCK_STREAM, 0, "vsock"),
    (libc::AF_ALG, libc::SOCK_SEQPACKET, 0, "alg"),
    (libc::AF_BLUETOOTH, libc::SOCK_RAW, 0, "bluetooth"),
    (libc::AF_CAN, libc::SOCK_RAW, 1, "can"),
    (libc::AF_TIPC, libc::SOCK_STREAM, 0, "tipc"),
    (44, libc::SOCK_RAW, 0, "xdp"),
];

fn a_socket_of_a_family_that_no_rule_names_is_not_made(scene: &mut Scene<'_>) -> Outcome {
    // What a family that this kernel does not have gives is asked of an outsider; the denial comes before.
    let mut outsider = Process::start()?;
    let mut denied = Cycle::new();
    let mut allowed = Cycle::new();
    for (family, kind, protocol, word) in SOCKETS {
        let step = step!("socket", family.to_string(), kind.to_string(), protocol.to_string());
        let (errno, _) = outsider.run(&step)?;
        let expected = record("socket_create", &["create"], json!({"family": word}), "no_rule", None);
        denied = denied.denied(step.clone(), expected).otherwise(errno);
        if matches!(*word, "inet" | "inet6" | "unix" | "netlink-route") {
            allowed = allowed.allowed(step).otherwise(errno);
        }
    }
    denied.run(scene, "network:\n  - {allow: [create], sockets: [decnet]}\n")?;
    allowed.run(scene, "network:\n  - {allow: [create], sockets: [inet, inet6, unix, netlink-route]}\n")
}

fn sctp_reaches_and_takes_no_denied_address_by_its_options(scene: &mut Scene<'_>) -> Outcome {
    const PORT: &str = "8198";
    if !std::fs::read_to_string("/proc/net/protocols")?.contains("SCTP") {
        return Err(skip("this kernel has no SCTP, or its package of modules is not to be had"));
    }
    let spec = r#"
network:
  - {allow: [create], sockets: [inet-raw]}
  - {allow: [connect], to: {addresses: ["127.0.0.1"], protocols: [sctp]}}
  - {allow: [listen], at: {addresses: ["127.0.0.1"], protocols: [sctp]}}
"#;
    let denied = |access: &str, address: &str| {
        record("sctp_bind_connect", &[access], internet("sctp", address, 8198), "no_rule", None)
    };
    let many = ["127.0.0.1"; 9];
    let too_many: Vec<Vec<u8>> =
        ["sctp-connect", PORT].into_iter().chain(many).map(|word| word.as_bytes().to_vec()).collect();
    let mut outsider = Process::start()?;
    let (unbound, _) = outsider.run(&too_many)?;
    let fault = json!({"operation": "sctp_bind_connect", "reason": "fault:address-unreadable", "verdict": "deny"});
    Cycle::new()
        .denied(step!("sctp-connect", PORT, "127.0.0.2"), denied("connect", "127.0.0.2"))
        .otherwise(libc::EINPROGRESS)
        .denied(step!("sctp-connect", PORT, "127.0.0.1", "127.0.0.2"), denied("connect", "127.0.0.2"))
        .otherwise(libc::EINPROGRESS)
        .denied(step!("sctp-bind", PORT, "127.0.0.1", "127.0.0.2"), denied("listen", "127.0.0.2"))
        .denied(too_many, fault)
        .otherwise(unbound)
        .allowed(step!("sctp-connect", PORT, "127.0.0.1"))
        .otherwise(libc::EINPROGRESS)
        .allowed(step!("sctp-bind", PORT, "127.0.0.1"))
        .run(scene, spec)
}
