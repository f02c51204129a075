//! docs/hooks.md is made from the hook table and kept true by this test: `UPDATE_DOCS=1 cargo test -p agent-monitor-common`
//! writes it anew.

use agent_monitor_common::hook::{Attach, HOOKS, NOT_ATTACHED};
use std::fmt::Write as _;

#[test]
fn the_page_about_hooks_says_what_the_table_says() {
    let mut page = String::from(
        "# Hooks\n\nWhere the kernel programs sit. Made from the table in `agent-monitor-common/src/hook.rs`; a test keeps it so.\n\n\
         | hook | kind | class | what it sees | where a kernel may lack it, why nothing passes |\n| --- | --- | --- | --- | --- |\n",
    );
    for hook in HOOKS {
        let kind = match hook.attach {
            Attach::Lsm(_) | Attach::LsmForms(_) => "LSM",
            Attach::CgroupSockAddr | Attach::CgroupEgress => "cgroup",
            Attach::Tracepoint(_) => "tracepoint",
            Attach::TracepointOnRequest(_) => "tracepoint, on request",
        };
        let class = hook.class.map_or("identity", |class| class.name());
        let absent = hook.absent.unwrap_or("");
        writeln!(page, "| `{}` | {kind} | {class} | {} | {absent} |", hook.name, hook.purpose)
            .expect("a string takes all");
    }
    page.push_str("\n## Left alone\n| hook | who judges instead |\n| --- | --- |\n");
    for (hook, why) in NOT_ATTACHED {
        assert!(HOOKS.iter().all(|row| row.name != *hook), "{hook} is attached and left alone");
        writeln!(page, "| `{hook}` | {why} |").expect("a string takes all");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hooks.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("write docs/hooks.md");
    }
    let written = std::fs::read_to_string(path).expect("read docs/hooks.md");
    assert!(written == page, "docs/hooks.md is old: run UPDATE_DOCS=1 cargo test -p agent-monitor-common");
}

#[test]
fn hooks_stand_by_number_and_each_number_and_name_stands_once() {
    for (index, hook) in HOOKS.iter().enumerate() {
        for other in &HOOKS[index + 1..] {
            assert!(hook.id < other.id, "{} is to stand behind {}", hook.name, other.name);
            assert_ne!(hook.name, other.name);
        }
        assert_eq!(hook.id.row().name, hook.name);
    }
}
