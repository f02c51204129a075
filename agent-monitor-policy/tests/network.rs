//! The sentences of the policy language about the network, privileges and capabilities.

mod common;

use common::check;

#[test]
fn addresses_ports_and_protocols_must_all_match() {
    check(
        r#"
  network:
    - allow: [connect, send]
      to: {addresses: ["10.0.0.0/8", "2001:db8::/32"], ports: [443, "8000-8999"], protocols: [tcp]}
    - deny: [connect]
      to: {addresses: ["10.9.0.0/16"]}
"#,
        "
        network:connect tcp:10.1.2.3:443 -> allow network[0]
        network:connect tcp:10.1.2.3:444 -> deny no_rule
        network:connect tcp:10.1.2.3:7999 -> deny no_rule
        network:connect tcp:10.1.2.3:8000 -> allow network[0]
        network:connect tcp:10.1.2.3:8500 -> allow network[0]
        network:connect tcp:10.1.2.3:8999 -> allow network[0]
        network:connect tcp:10.1.2.3:9000 -> deny no_rule
        network:connect udp:10.1.2.3:443 -> deny no_rule
        network:connect tcp:11.1.2.3:443 -> deny no_rule
        network:connect tcp:[2001:db8::1]:443 -> allow network[0]
        network:connect tcp:[2001:db9::1]:443 -> deny no_rule
        network:send tcp:10.1.2.3:443 -> allow network[0]
        network:connect,send tcp:10.1.2.3:443 -> allow network[0]
        network:listen tcp:10.1.2.3:443 -> deny no_rule
        network:connect tcp:10.9.2.3:443 -> deny network[1]
        network:send tcp:10.9.2.3:443 -> allow network[0]
        network:connect,send tcp:10.9.2.3:443 -> deny network[1]
        ",
    );
}

#[test]
fn what_a_rule_leaves_out_is_any() {
    check(
        r#"
  network:
    - allow: [connect]
      to: {}
    - allow: [send]
      to: {ports: [53]}
    - allow: [listen]
      at: {protocols: [udp]}
"#,
        "
        network:connect tcp:1.2.3.4:1 -> allow network[0]
        network:connect sctp:[fe80::1]:65535 -> allow network[0]
        network:connect 47:1.2.3.4:0 -> allow network[0]
        network:send udp:1.2.3.4:53 -> allow network[1]
        network:send udp:1.2.3.4:54 -> deny no_rule
        network:listen udp:0.0.0.0:0 -> allow network[2]
        network:listen tcp:0.0.0.0:0 -> deny no_rule
        network:connect unix:/run/x -> deny no_rule
        network:create inet -> deny no_rule
        ",
    );
}

#[test]
fn prefixes_of_every_length_end_where_they_should() {
    for length in 0..=32_u32 {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let (first, last) = (0xac55_aa33 & mask, 0xac55_aa33 | !mask);
        let ip = |bits: u32| std::net::Ipv4Addr::from_bits(bits);
        let spec = format!("  network: [{{allow: [connect], to: {{addresses: [\"{}/{length}\"]}}}}]", ip(first));
        let ask = |bits: u32| common::answer(&common::image(&spec), &format!("network:connect tcp:{}:1", ip(bits)));
        // 0.0.0.0 as a destination is 127.0.0.1, which the shortest prefix holds too.
        assert_eq!(
            (ask(first), ask(last)),
            ("allow network[0]".to_owned(), "allow network[0]".to_owned()),
            "/{length}"
        );
        if length > 0 {
            assert_eq!(ask(first.wrapping_sub(1)), "deny no_rule", "/{length}");
            assert_eq!(ask(last.wrapping_add(1)), "deny no_rule", "/{length}");
        }
    }
}

#[test]
fn a_mapped_address_is_the_ipv4_address_and_an_unspecified_destination_is_local() {
    check(
        r#"
  network:
    - allow: [connect]
      to: {addresses: ["127.0.0.1", "::1", "::ffff:10.1.2.3"]}
"#,
        "
        network:connect tcp:[::ffff:10.1.2.3]:1 -> allow network[0]
        network:connect tcp:10.1.2.3:1 -> allow network[0]
        network:connect tcp:0.0.0.0:1 -> allow network[0]
        network:connect tcp:[::]:1 -> allow network[0]
        network:connect tcp:[::ffff:0.0.0.0]:1 -> allow network[0]
        network:connect tcp:127.0.0.2:1 -> deny no_rule
        ",
    );
}

#[test]
fn listening_everywhere_needs_a_rule_that_holds_it_and_no_denial_of_that_port_and_protocol() {
    check(
        r#"
  network:
    - allow: [listen]
      at: {addresses: ["127.0.0.0/8", "::1"], ports: [8080]}
    - allow: [listen]
      at: {addresses: ["0.0.0.0", "::"], ports: ["9000-9999"]}
    - allow: [listen]
      at: {addresses: ["0.0.0.0/0"], ports: [7000]}
    - deny: [listen]
      at: {addresses: ["10.1.2.3"], ports: [9001, 7000], protocols: [tcp]}
"#,
        "
        network:listen tcp:127.0.0.1:8080 -> allow network[0]
        network:listen tcp:0.0.0.0:8080 -> deny no_rule
        network:listen tcp:[::]:8080 -> deny no_rule
        network:listen tcp:0.0.0.0:9000 -> allow network[1]
        network:listen tcp:[::]:9000 -> allow network[1]
        network:listen tcp:10.0.0.1:9000 -> deny no_rule
        network:listen tcp:0.0.0.0:9001 -> deny network[3]
        network:listen tcp:[::]:9001 -> deny network[3]
        network:listen udp:0.0.0.0:9001 -> allow network[1]
        network:listen tcp:0.0.0.0:7000 -> deny network[3]
        network:listen tcp:10.1.2.4:7000 -> allow network[2]
        network:listen tcp:10.1.2.3:7000 -> deny network[3]
        ",
    );
}

#[test]
fn any_free_port_is_matched_only_by_a_rule_without_ports() {
    check(
        r#"
  network:
    - allow: [listen]
      at: {addresses: ["127.0.0.1"], ports: ["1-65535"]}
    - allow: [listen]
      at: {addresses: ["127.0.0.2"]}
"#,
        "
        network:listen tcp:127.0.0.1:1 -> allow network[0]
        network:listen tcp:127.0.0.1:65535 -> allow network[0]
        network:listen tcp:127.0.0.1:0 -> deny no_rule
        network:listen tcp:127.0.0.2:0 -> allow network[1]
        ",
    );
}

#[test]
fn metadata_services_are_allowed_only_by_their_exact_address() {
    for (all, deny) in [("to: {}", false), ("to: {addresses: [\"0.0.0.0/0\", \"::/0\"]}", false), ("to: {}", true)] {
        let rule = if deny { "deny" } else { "allow" };
        let answer = if deny { "deny network[0]" } else { "deny no_rule" };
        let neighbour = format!("{rule} network[0]");
        check(
            &format!("  network: [{{{rule}: [connect], {all}}}]"),
            &format!(
                "
                network:connect tcp:169.254.169.254:80 -> {answer}
                network:connect tcp:[::ffff:169.254.169.254]:80 -> {answer}
                network:connect tcp:[fd00:ec2::254]:80 -> {answer}
                network:connect tcp:169.254.169.253:80 -> {neighbour}
                network:connect tcp:169.254.169.255:80 -> {neighbour}
                network:connect tcp:169.254.168.254:80 -> {neighbour}
                network:connect tcp:169.255.169.254:80 -> {neighbour}
                network:connect tcp:168.254.169.254:80 -> {neighbour}
                network:connect tcp:[fd00:ec2::253]:80 -> {neighbour}
                network:connect tcp:[fd01:ec2::254]:80 -> {neighbour}
                "
            ),
        );
    }
    check(
        "  network: [{allow: [connect], to: {addresses: [169.254.0.0/16, 169.254.169.254, \"fd00:ec2::254/128\"]}}]",
        "
        network:connect tcp:169.254.169.254:80 -> allow network[0]
        network:connect tcp:[fd00:ec2::254]:80 -> allow network[0]
        network:connect tcp:169.254.1.1:80 -> allow network[0]
        network:connect tcp:[fd00:ec2::253]:80 -> deny no_rule
        ",
    );
    check(
        "  network: [{allow: [connect], to: {addresses: [169.254.169.254/31]}}]",
        "
        network:connect tcp:169.254.169.254:80 -> deny no_rule
        network:connect tcp:169.254.169.255:80 -> allow network[0]
        ",
    );
}

#[test]
fn unix_paths_and_abstract_names_do_not_match_each_other() {
    check(
        r#"
  network:
    - allow: [connect, send]
      to: {unix: ["/run/*/socket", "**/any", "@abs*"]}
    - deny: [connect]
      to: {unix: ["@abs-no**"]}
    - allow: [listen]
      at: {unix: ["@mine"]}
"#,
        "
        network:connect unix:/run/nscd/socket -> allow network[0]
        network:connect unix:/run/a/b/socket -> deny no_rule
        network:connect unix:/x/any -> allow network[0]
        network:connect unix:@x/any -> deny no_rule
        network:connect unix:@abs -> allow network[0]
        network:connect unix:@abstract -> allow network[0]
        network:connect unix:@abs/tract -> deny no_rule
        network:connect unix:@abs-no/x -> deny network[1]
        network:send unix:@abs-no -> allow network[0]
        network:connect unix:/abs -> deny no_rule
        network:listen unix:@mine -> allow network[2]
        network:listen unix:/mine -> deny no_rule
        ",
    );
}

#[test]
fn a_family_that_no_rule_names_cannot_be_created() {
    check(
        r#"
  network:
    - allow: [create]
      sockets: [inet, inet6-raw, unix, netlink-route, vsock]
    - allow: [all]
      sockets: [alg]
"#,
        "
        network:create inet -> allow network[0]
        network:create inet6 -> deny no_rule
        network:create inet-raw -> deny no_rule
        network:create inet6-raw -> allow network[0]
        network:create netlink-route -> allow network[0]
        network:create netlink -> deny no_rule
        network:create vsock -> allow network[0]
        network:create alg -> allow network[1]
        network:create packet -> deny no_rule
        network:connect tcp:1.2.3.4:80 -> deny no_rule
        ",
    );
}

#[test]
fn all_means_the_words_that_go_with_the_keys_present() {
    check(
        r#"
  network:
    - allow: [all]
      to: {ports: [1]}
    - allow: [all]
      at: {ports: [2]}
    - allow: [connect, listen, create]
      to: {ports: [3]}
      at: {ports: [4]}
      sockets: [unix]
"#,
        "
        network:connect tcp:1.1.1.1:1 -> allow network[0]
        network:send udp:1.1.1.1:1 -> allow network[0]
        network:listen tcp:1.1.1.1:1 -> deny no_rule
        network:listen tcp:1.1.1.1:2 -> allow network[1]
        network:connect tcp:1.1.1.1:2 -> deny no_rule
        network:connect tcp:1.1.1.1:3 -> allow network[2]
        network:send tcp:1.1.1.1:3 -> deny no_rule
        network:listen tcp:1.1.1.1:4 -> allow network[2]
        network:listen tcp:1.1.1.1:3 -> deny no_rule
        network:create unix -> allow network[2]
        ",
    );
}

#[test]
fn privileges_and_capabilities_are_denied_unless_named_and_none_includes_another() {
    check(
        r#"
  privileges:
    - allow: [signal-any]
  capabilities:
    - allow: [CAP_CHOWN, CAP_SYS_ADMIN]
    - deny: [CAP_CHOWN]
"#,
        "
        privilege signal-any -> allow privileges[0]
        privilege signal-same-agent -> deny no_rule
        privilege ptrace-same-agent -> deny no_rule
        privilege bpf -> deny no_rule
        capability CAP_SYS_ADMIN -> allow capabilities[0]
        capability CAP_CHOWN -> deny capabilities[1]
        capability CAP_BPF -> deny no_rule
        ",
    );
}
