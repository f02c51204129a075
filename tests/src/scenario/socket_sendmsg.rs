//! `socket_sendmsg`: sends to an address that is named in the call; and connections by every other road.

use std::net::TcpListener;

use serde_json::json;

use super::socket_connect::internet;
use crate::harness::process::shown;
use crate::harness::{Cycle, Outcome, Process, Scenario, Scene, builtin, record, skip};
use crate::{scenarios, step};

pub const ALL: &[Scenario] = scenarios![Node:
    a_denied_address_is_not_reached_by_any_send,
    a_send_with_a_cut_off_address_is_denied_as_a_fault,
    the_unspecified_address_leads_to_no_denied_address,
    a_denied_address_is_not_reached_by_tcp_fast_open,
    a_denied_address_is_not_reached_by_mptcp,
    a_udp_socket_is_judged_at_each_connect,
    a_datagram_socket_gets_no_port_by_a_send_to_nobody,
    a_socket_made_before_binding_reaches_no_denied_address,
    what_a_socket_was_set_to_before_binding_leads_to_no_denied_address,
    nothing_is_sent_by_way_of_other_addresses,
    no_packet_leaves_with_a_route_that_no_hook_was_asked_for,
    a_raw_socket_reaches_no_denied_address,
];

const CREATE: &str = "network:\n  - {allow: [create], sockets: [inet, inet6]}\n";

fn a_denied_address_is_not_reached_by_any_send(scene: &mut Scene<'_>) -> Outcome {
    let denied = |address: &str| record("socket_sendmsg", &["send"], internet("udp", address, 9), "no_rule", None);
    let spec =
        format!("{CREATE}  - {{allow: [send], to: {{addresses: [\"127.0.0.2\"], ports: [9], protocols: [udp]}}}}\n");
    let mut cycle = Cycle::new()
        .denied(step!("sendto", "udp", "127.0.0.1:9"), denied("127.0.0.1"))
        .denied(step!("sendmsg", "udp", "127.0.0.1:9"), denied("127.0.0.1"))
        .denied(step!("sendmmsg", "udp", "127.0.0.1:9"), denied("127.0.0.1"))
        .denied(step!("sendto", "udp", "0.0.0.0:9"), denied("127.0.0.1"))
        .denied(step!("sendto", "udp", "[::ffff:127.0.0.1]:9"), denied("127.0.0.1"))
        .denied(step!("sendto", "udp", "[::1]:9"), denied("::1"))
        .denied(step!("sendmsg", "udp", "[::]:9"), denied("::1"))
        .denied(step!("sendto-unspec", "udp", "127.0.0.1:9"), denied("127.0.0.1"));
    let udplite = step!("sendto", "udplite", "127.0.0.1:9");
    let outsider = Process::start()?.run(&udplite)?.0;
    // The newest kernels have no UDP-Lite: there is no socket to send from.
    if outsider != libc::EPROTONOSUPPORT {
        let expected = record("socket_sendmsg", &["send"], internet("udplite", "127.0.0.1", 9), "no_rule", None);
        cycle = cycle.denied(udplite, expected).otherwise(outsider);
    }
    cycle
        .allowed(step!("sendto", "udp", "127.0.0.2:9"))
        .allowed(step!("sendmsg", "udp", "[::ffff:127.0.0.2]:9"))
        .allowed(step!("sendmmsg", "udp", "127.0.0.2:9"))
        .run(scene, &spec)
}

/// From a socket with an address or a device of its own it is that host's own address there, and not 127.0.0.1.
fn the_unspecified_address_leads_to_no_denied_address(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!(
        "{CREATE}  - {{allow: [send], to: {{addresses: [\"127.0.0.1\", \"::1\"]}}}}\n  \
         - {{allow: [listen], at: {{addresses: [\"127.0.0.0/8\"]}}}}\ncapabilities:\n  - {{allow: [CAP_NET_RAW]}}\n"
    );
    let denied = |address: &str| record("socket_sendmsg", &["send"], internet("udp", address, 9), "no_rule", None);
    Cycle::new()
        .allowed(step!("sendto", "udp", "0.0.0.0:9"))
        .allowed(step!("sendto", "udp", "[::]:9"))
        .allowed(step!("sendto-from", "0.0.0.0:9", "127.0.0.1:0"))
        .denied(step!("sendto-from", "0.0.0.0:9", "127.0.0.2:0"), denied("0.0.0.0"))
        .denied(step!("sendto-by-information", "0.0.0.0:9"), denied("0.0.0.0"))
        .denied(step!("sendto-by-device", "0.0.0.0:9"), denied("0.0.0.0"))
        // Of several messages to one address the kernel asks for the first; with the address that it then has, these differ.
        .prepared(|| (), step!("send-second-by-information", "0.0.0.0:9"), libc::ECANCELED, vec![denied("0.0.0.0")])
        .run(scene, &spec)?;
    // From a mapped address `::` is 127.0.0.1, not ::1.
    let spec = spec.replace("\"127.0.0.1\", ", "");
    Cycle::new()
        .allowed(step!("sendto", "udp", "[::]:9"))
        .denied(step!("sendto-from", "[::]:9", "[::ffff:127.0.0.1]:0"), denied("127.0.0.1"))
        .run(scene, &spec)
}

fn a_send_with_a_cut_off_address_is_denied_as_a_fault(scene: &mut Scene<'_>) -> Outcome {
    let spec = format!("{CREATE}  - {{allow: [send], to: {{addresses: [\"0.0.0.0/0\"]}}}}\n");
    let expected = record("socket_sendmsg", &["send"], json!({}), "fault:address-unreadable", None);
    Cycle::new().denied(step!("sendto-short", "udp", "127.0.0.1:9"), expected).otherwise(libc::EINVAL).run(scene, &spec)
}

fn a_denied_address_is_not_reached_by_tcp_fast_open(scene: &mut Scene<'_>) -> Outcome {
    let (four, six) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?);
    let (four, six) = (four.local_addr().map(|at| (four, at))?, six.local_addr().map(|at| (six, at))?);
    let denied = |hook: &str, at: std::net::SocketAddr| {
        record(hook, &["connect"], internet("tcp", &at.ip().to_string(), at.port()), "no_rule", None)
    };
    Cycle::new()
        .denied(step!("send-fast-open", "tcp", four.1.to_string()), denied("socket_sendmsg", four.1))
        .denied(step!("send-fast-open", "tcp", six.1.to_string()), denied("socket_sendmsg", six.1))
        .denied(step!("connect-fast-open", four.1.to_string()), denied("socket_connect", four.1))
        .denied(step!("connect-fast-open", six.1.to_string()), denied("socket_connect", six.1))
        .run(scene, CREATE)
}

fn a_denied_address_is_not_reached_by_mptcp(scene: &mut Scene<'_>) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let step = step!("connect", "mptcp", at.to_string());
    if Process::start()?.run(&step)?.0 == libc::EPROTONOSUPPORT {
        return Err(skip("this kernel has no MPTCP"));
    }
    let denied = record("socket_connect", &["connect"], internet("tcp", "127.0.0.1", at.port()), "no_rule", None);
    Cycle::new().denied(step, denied).run(scene, CREATE)
}

fn a_udp_socket_is_judged_at_each_connect(scene: &mut Scene<'_>) -> Outcome {
    let denied = record("socket_connect", &["connect"], internet("udp", "127.0.0.1", 9), "no_rule", None);
    let spec = format!("{CREATE}  - {{allow: [connect], to: {{addresses: [\"127.0.0.2\"]}}}}\n");
    Cycle::new()
        .allowed(step!("socket-hold", "s", "udp"))
        .allowed(step!("connect-held", "s", "127.0.0.2:9"))
        .denied(step!("connect-held", "s", "127.0.0.1:9"), denied.clone())
        .allowed(step!("connect-unspec-held", "s"))
        .denied(step!("connect-held", "s", "127.0.0.1:9"), denied)
        .run(scene, &spec)
}

fn a_socket_made_before_binding_reaches_no_denied_address(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    process.works(&step!("socket-hold", "s", "udp"), "before binding")?;
    scene.bind("network:\n  - {allow: [create], sockets: [decnet]}\n")?;
    let object = internet("udp", "127.0.0.1", 9);
    let sent = record("socket_sendmsg", &["send"], object.clone(), "no_rule", None);
    scene.denied(&mut process, &step!("sendto-held", "s", "127.0.0.1:9"), libc::EACCES, &sent)?;
    let connected = record("socket_connect", &["connect"], object, "no_rule", None);
    scene.denied(&mut process, &step!("connect-held", "s", "127.0.0.1:9"), libc::EACCES, &connected)?;
    scene.unbind_after(2)?;
    process.works(&step!("connect-held", "s", "127.0.0.1:9"), "after unbinding").map(drop)
}

/// What was given to a socket before the binding leads nowhere else: the destination of a datagram that is begun, a route.
fn what_a_socket_was_set_to_before_binding_leads_to_no_denied_address(scene: &mut Scene<'_>) -> Outcome {
    let mut process = scene.process()?;
    let (denied, allowed, allowed_six) = ("127.0.0.2:9", "127.0.0.3:9", "[::ffff:127.0.0.3]:9");
    for (name, family) in [("four", "4"), ("six", "6"), ("free", "4")] {
        process.works(&step!("socket-hold", name, "udp", family), "before binding")?;
    }
    process.works(&step!("sendto-held-more", "four", denied), "before binding")?;
    process.works(&step!("sendto-held-more", "six", "[::ffff:127.0.0.2]:9"), "before binding")?;
    process.works(&step!("sendto-held-more", "free", allowed), "before binding")?;
    for (name, protocol) in [("stream", "tcp"), ("datagram", "udp")] {
        process.works(&step!("socket-hold", name, protocol), "before binding")?;
        process.works(&step!("route-held", name), "before binding")?;
    }
    scene.bind(&format!("{CREATE}  - {{allow: [connect, send], to: {{addresses: [\"127.0.0.3\"]}}}}\n"))?;
    let begun = || record("socket_sendmsg", &["send"], internet("udp", "127.0.0.2", 9), "no_rule", None);
    scene.denied(&mut process, &step!("sendto-held", "four", allowed), libc::EACCES, &begun())?;
    scene.denied(&mut process, &step!("sendto-held", "six", allowed_six), libc::EACCES, &begun())?;
    process.works(&step!("sendto-held", "free", allowed), "bound, to where it was begun")?;
    let routed = |hook: &str, access: &str, protocol: &str| {
        builtin(hook, &[access], internet(protocol, "127.0.0.3", 9), "source-route")
    };
    let connect = step!("connect-held", "stream", allowed);
    scene.denied(&mut process, &connect, libc::EACCES, &routed("socket_connect", "connect", "tcp"))?;
    let send = step!("sendto-held", "datagram", allowed);
    scene.denied(&mut process, &send, libc::EACCES, &routed("socket_sendmsg", "send", "udp"))?;
    scene.unbind_after(4)
}

/// A packet with a source route goes to the first address of the route, whatever its destination is.
fn nothing_is_sent_by_way_of_other_addresses(scene: &mut Scene<'_>) -> Outcome {
    let spec = "network:\n  - {allow: [create], sockets: [inet, inet6, inet-raw, inet6-raw]}\n  \
                - {allow: [connect, send], to: {addresses: [\"127.0.0.1\", \"::1\"]}}\ncapabilities:\n  - {allow: [CAP_NET_RAW]}\n";
    let denied = |hook: &str| builtin(hook, &["send"], json!({}), "source-route");
    let mut outsider = Process::start()?;
    let mut cycle = Cycle::new();
    for (step, hook) in [
        (step!("set-ip-options", "udp"), "socket_setsockopt"),
        (step!("set-ip-options", "tcp"), "socket_setsockopt"),
        (step!("set-routing-header", "udp"), "socket_setsockopt"),
        (step!("set-routing-header", "tcp"), "socket_setsockopt"),
        (step!("set-flow-label"), "socket_setsockopt"),
        (step!("set-own-header", "4"), "socket_setsockopt"),
        (step!("set-own-header", "6"), "socket_setsockopt"),
        (step!("set-own-header-raw"), "socket_setsockopt"),
        (step!("send-routed", "udp", "127.0.0.1:9"), "socket_sendmsg"),
        (step!("send-routed", "udp", "[::1]:9"), "socket_sendmsg"),
    ] {
        let (errno, _) = outsider.run(&step)?;
        anyhow::ensure!(errno != libc::EACCES, "{step:?} is refused to an outsider too");
        cycle = cycle.denied(step, denied(hook)).otherwise(errno);
    }
    cycle
        // A raw socket whose packets have a header of the caller's own.
        .denied(step!("socket", "2", "3", "255"), builtin("socket_create", &["create"], json!({}), "source-route"))
        .allowed(step!("sendto", "udp", "127.0.0.1:9"))
        .run(scene, spec)
}

/// For the second message to the same address of one `sendmmsg` the kernel asks no LSM hook.
fn no_packet_leaves_with_a_route_that_no_hook_was_asked_for(scene: &mut Scene<'_>) -> Outcome {
    let spec = "network:\n  - {allow: [create], sockets: [inet, inet6, inet-raw, inet6-raw]}\n  \
                - {allow: [connect, send], to: {addresses: [\"127.0.0.1\", \"::1\"]}}\ncapabilities:\n  - {allow: [CAP_NET_RAW]}\n";
    let mut expected = builtin("skb_egress", &["send"], json!({}), "source-route");
    expected["errno"] = json!("EPERM");
    let mut outsider = Process::start()?;
    let mut cycle = Cycle::new();
    for step in [
        step!("send-second-routed", "udp", "127.0.0.1:9"),
        step!("send-second-routed", "raw4", "127.0.0.1:0"),
        step!("send-second-routed", "udp", "[::1]:9"),
        step!("send-second-routed", "raw6", "[::1]:0"),
    ] {
        let (errno, _) = outsider.run(&step)?;
        if errno == libc::ECANCELED && step.concat().contains(&b'[') {
            println!("without {}: this kernel puts no such header (CONFIG_IPV6_MIP6)", shown(&step));
            continue;
        }
        anyhow::ensure!(errno == 0, "{} gives an outsider errno {errno}", shown(&step));
        cycle = cycle.prepared(|| (), step, libc::ECANCELED, vec![expected.clone()]);
    }
    cycle.allowed(step!("sendmmsg", "udp", "127.0.0.1:9")).run(scene, spec)
}

fn a_raw_socket_reaches_no_denied_address(scene: &mut Scene<'_>) -> Outcome {
    let spec = "network:\n  - {allow: [create], sockets: [inet6-raw]}\ncapabilities:\n  - {allow: [CAP_NET_RAW]}\n";
    let denied = record("socket_sendmsg", &["send"], json!({"family": "inet6", "address": "::1"}), "no_rule", None);
    Cycle::new()
        .denied(step!("sendto", "raw6", "[::1]:0"), denied.clone())
        // rawv6_sendmsg() takes AF_UNSPEC for AF_INET6.
        .denied(step!("sendto-unspec", "raw6", "[::1]:0"), denied)
        .run(scene, spec)
}

/// The call fails, but the kernel gives the socket a port first, at which anybody reaches it.
fn a_datagram_socket_gets_no_port_by_a_send_to_nobody(scene: &mut Scene<'_>) -> Outcome {
    let denied = |address: &str| record("socket_sendmsg", &["send"], internet("udp", address, 0), "no_rule", None);
    let foreign = json!({"operation": "socket_connect", "access": ["connect"], "reason": "fault:address-unreadable"});
    let (unbound, _) = Process::start()?.run(&step!("connect-foreign", "udplite"))?;
    let mut cycle = Cycle::new();
    // The newest kernels have no UDP-Lite, and nothing to connect then.
    if unbound != libc::EPROTONOSUPPORT {
        // So does a connect to a name of another family.
        cycle = cycle.denied(step!("connect-foreign", "udplite"), foreign).otherwise(unbound);
    }
    cycle
        .denied(step!("send-to-nobody", "4"), denied("127.0.0.1"))
        .otherwise(libc::EDESTADDRREQ)
        .denied(step!("send-to-nobody", "6"), denied("::1"))
        .otherwise(libc::EDESTADDRREQ)
        .run(scene, "network:\n  - {allow: [create], sockets: [inet, inet6]}\n")
}
