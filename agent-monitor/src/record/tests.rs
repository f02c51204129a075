//! The format, frozen: a change here is a change for everybody who reads the records.

use super::*;

fn record(body: Body) -> Record {
    Record { time: "2026-11-22T10:00:00.123456789Z".into(), seq: Some(4711), node_name: "n1".into(), body }
}

fn agent() -> Arc<AgentRef> {
    Arc::new(AgentRef {
        id: "coding-agent-3f2a".into(),
        name: "fix-issue-12".into(),
        cgroup_id: 4242,
        cgroup: Some("/agents.slice/coding-agent/3f2a".into()),
        labels: BTreeMap::from([("session".into(), "s-1".into())]),
    })
}

fn policy() -> PolicyRef {
    PolicyRef { name: "coding-agent".into(), generation: 7, rule: None, rule_reason: None }
}

fn operation() -> Operation {
    Operation {
        class: "file".into(),
        operation: "file_open".into(),
        access: vec!["read".into()],
        verdict: "deny".into(),
        reason: "no_rule".into(),
        errno: Some("EACCES".into()),
        signal: None,
        mode: "enforce".into(),
        enforcement: None,
        object: Object { path: Some("/etc/shadow".into()), ..Object::default() },
        policy: policy(),
        agent: agent(),
        process: Process {
            exec_id: "bjE6MTA6MzEx".into(),
            pid: 311,
            tid: 311,
            uid: 1000,
            binary: Some("/usr/bin/python3.11".into()),
            arguments: Some("a.py".into()),
            cwd: None,
            start_time: "2026-11-22T09:00:00.000000000Z".into(),
            parent_exec_id: "bjE6MTozMTA=".into(),
        },
        pod: None,
        count: 1,
        first_time: None,
    }
}

fn check(record: &Record, line: &str) {
    assert_eq!(record.to_line(), format!("{}\n", line.replace("\n ", "")));
    assert_eq!(&Record::parse(&record.to_line()).expect("own lines parse"), record);
}

#[test]
fn operation_is_written_as_documented() {
    check(
        &record(Body::Operation(Box::new(operation()))),
        r#"{"time":"2026-11-22T10:00:00.123456789Z","seq":4711,"type":"operation","node_name":"n1","class":"file","operation":"file_open",
 "access":["read"],"verdict":"deny","reason":"no_rule","errno":"EACCES","mode":"enforce",
 "object":{"path":"/etc/shadow"},
 "policy":{"name":"coding-agent","generation":7,"rule":null},
 "agent":{"id":"coding-agent-3f2a","name":"fix-issue-12","cgroup_id":4242,"cgroup":"/agents.slice/coding-agent/3f2a","labels":{"session":"s-1"}},
 "process":{"exec_id":"bjE6MTA6MzEx","pid":311,"tid":311,"uid":1000,"binary":"/usr/bin/python3.11","arguments":"a.py","cwd":null,"start_time":"2026-11-22T09:00:00.000000000Z","parent_exec_id":"bjE6MTozMTA="},
 "pod":null,"count":1}"#,
    );
}

#[test]
fn partial_enforcement_is_said_in_the_record() {
    let operation = Operation { enforcement: Some("partial".into()), ..operation() };
    let line = record(Body::Operation(Box::new(operation))).to_line();
    assert!(line.contains(r#""mode":"enforce","enforcement":"partial","object""#), "{line}");
}

#[test]
fn a_rule_is_named_with_its_reason() {
    let rule = PolicyRef { rule: Some("files[2]".into()), rule_reason: Some("credentials".into()), ..policy() };
    let line = record(Body::Operation(Box::new(Operation { policy: rule, ..operation() }))).to_line();
    assert!(line.contains(r#""generation":7,"rule":"files[2]","rule_reason":"credentials"}"#), "{line}");
}

#[test]
fn agent_is_written_as_documented() {
    let counts = Counts { denied: 4, audited: 0, faults: 0, written: 2, folded: 1, lost: 1, ..Counts::default() };
    let change = AgentChange {
        action: "exited".into(),
        mode: "enforce".into(),
        policy: policy(),
        agent: agent(),
        expires: None,
        counts: Some(counts),
    };
    check(
        &record(Body::Agent(Box::new(change))),
        r#"{"time":"2026-11-22T10:00:00.123456789Z","seq":4711,"type":"agent","node_name":"n1","action":"exited","mode":"enforce",
 "policy":{"name":"coding-agent","generation":7,"rule":null},
 "agent":{"id":"coding-agent-3f2a","name":"fix-issue-12","cgroup_id":4242,"cgroup":"/agents.slice/coding-agent/3f2a","labels":{"session":"s-1"}},
 "counts":{"denied":4,"audited":0,"faults":0,"written":2,"folded":1,"lost":1}}"#,
    );
}

#[test]
fn the_end_of_a_binding_is_said_where_there_is_one() {
    let change = AgentChange {
        action: "expired".into(),
        mode: "enforce".into(),
        policy: PolicyRef { name: "empty".into(), generation: 1, ..PolicyRef::default() },
        agent: agent(),
        expires: Some("2026-11-22T10:00:00.000000000Z".into()),
        counts: None,
    };
    let record = record(Body::Agent(Box::new(change)));
    let line = record.to_line();
    assert!(
        line.ends_with("\"labels\":{\"session\":\"s-1\"}},\"expires\":\"2026-11-22T10:00:00.000000000Z\"}\n"),
        "{line}"
    );
    assert_eq!(Record::parse(&line).expect("own lines parse"), record);
}

#[test]
fn policy_monitor_and_loss_are_written_as_documented() {
    let change = PolicyChange {
        action: "refused".into(),
        policy: policy(),
        source: Some("/etc/agent-monitor/policies/a.yaml".into()),
        messages: vec!["a.yaml:3:1: unknown key".into()],
    };
    check(
        &record(Body::Policy(change)),
        r#"{"time":"2026-11-22T10:00:00.123456789Z","seq":4711,"type":"policy","node_name":"n1","action":"refused",
 "policy":{"name":"coding-agent","generation":7,"rule":null},"source":"/etc/agent-monitor/policies/a.yaml","messages":["a.yaml:3:1: unknown key"]}"#,
    );
    let change = MonitorChange {
        action: "ready".into(),
        version: "0.1.0".into(),
        enforcement: "full".into(),
        messages: Vec::new(),
    };
    check(
        &record(Body::Monitor(change)),
        r#"{"time":"2026-11-22T10:00:00.123456789Z","seq":4711,"type":"monitor","node_name":"n1","action":"ready","version":"0.1.0","enforcement":"full","messages":[]}"#,
    );
    let loss = Loss {
        stage: "kernel".into(),
        reason: "denials_ring_full".into(),
        count: 12,
        agent: None,
        after_seq: Some(4700),
        before_seq: Some(4711),
        ..Loss::default()
    };
    check(
        &record(Body::Loss(loss)),
        r#"{"time":"2026-11-22T10:00:00.123456789Z","seq":4711,"type":"loss","node_name":"n1","stage":"kernel","reason":"denials_ring_full","count":12,"agent":null,"after_seq":4700,"before_seq":4711}"#,
    );
}

#[test]
fn a_loss_of_the_audit_log_names_the_file_and_what_was_found() {
    let (_, hash) = chain::seal("{}\n", None);
    let loss = Loss {
        stage: "audit".into(),
        reason: "chain_broken".into(),
        after_seq: Some(4700),
        before_seq: Some(4711),
        file: Some("audit.jsonl".into()),
        last_hash: Some(hash),
        detail: Some("changed".into()),
        ..Loss::default()
    };
    let line = r#"{"time":"2026-11-22T10:00:00.123456789Z","seq":4711,"type":"loss","node_name":"n1","stage":"audit","reason":"chain_broken","count":0,"agent":null,"after_seq":4700,"before_seq":4711,
 "file":"audit.jsonl","last_hash":"HASH","detail":"changed"}"#;
    check(&record(Body::Loss(loss)), &line.replace("HASH", &hash.to_string()));
}

#[test]
fn the_fields_of_the_chain_change_nothing_of_what_a_line_says() {
    for body in [Body::Operation(Box::new(operation())), Body::Loss(Loss::default())] {
        let record = record(body);
        let (_, before) = chain::seal("{}\n", None);
        let (line, _) = chain::seal(&record.to_line(), Some(before));
        assert_eq!(Record::parse(&line).expect("a sealed line parses"), record);
    }
}

#[test]
fn an_unknown_type_and_torn_lines_are_errors() {
    let line = record(Body::Operation(Box::new(operation()))).to_line();
    assert!(Record::parse(&line.replace("\"operation\",\"node", "\"other\",\"node")).is_err());
    assert!(Record::parse(&line[..line.len() / 2]).is_err());
}
