//! The documentation says what the tables say.

use agent_monitor_common::privilege::{NEVER, PRIVILEGES};
use agent_monitor_policy::syscall::GROUPS;
use agent_monitor_policy::{Document, Options, compile};
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_privilege_is_documented_as_the_table_says() {
    let mut table = String::from(
        "| privilege | lets a program | judged in | the kernel asks for, besides |\n| --- | --- | --- | --- |\n",
    );
    for row in PRIVILEGES {
        let hooks: Vec<String> = row.hooks.iter().map(|hook| format!("`{}`", hook.row().name)).collect();
        let (name, hooks) = (row.privilege.name(), hooks.join(", "));
        table += &format!("| `{name}` | {} | {hooks} | {} |\n", row.meaning, row.capability);
    }
    for (name, why) in NEVER {
        table += &format!("| `{name}` | can't be granted: {why} | | |\n");
    }
    let page = page();
    let (before, rest) = page.split_once("by a test -->\n").expect("the table's start is marked");
    let (documented, after) = rest.split_once("<!-- end -->").expect("the table's end is marked");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
        let written = std::fs::write(&path, format!("{before}by a test -->\n{table}<!-- end -->{after}"));
        return written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    assert!(documented == table, "docs/policy.md is old: run UPDATE_DOCS=1 cargo test -p agent-monitor-policy");
}

#[test]
fn the_example_of_the_page_compiles() {
    let page = page();
    let text = page.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```")).expect("an example").0;
    let base = |name: &str| -> Result<Option<Document>, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../policies/{name}.yaml"));
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        Ok(Some(Document { path: format!("{name}.yaml"), text }))
    };
    struct Shipped<F>(F);
    impl<F: Fn(&str) -> Result<Option<Document>, String>> agent_monitor_policy::Library for Shipped<F> {
        fn find(&self, name: &str, _beside: &str) -> Result<Option<Document>, String> {
            (self.0)(name)
        }
    }
    let document = Document { path: "docs/policy.md".to_owned(), text: text.to_owned() };
    let compiled = compile(document, &Shipped(base), &Options::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(compiled.warnings.is_empty(), "{}", compiled.warnings);
}

/// `UPDATE_DOCS=1 cargo test -p agent-monitor-policy` writes the list anew.
#[test]
fn every_group_of_system_calls_is_documented_with_its_members() {
    const BEGIN: &str = "<!-- syscalls: made from agent-monitor-policy/src/syscall.rs -->\n";
    let mut list = String::new();
    for group in GROUPS {
        let members: Vec<String> = group.members.iter().map(|member| format!("`{member}`")).collect();
        list += &format!("- **`{}`**, {}: {}\n", group.name, group.purpose, members.join(" "));
    }
    let page = page();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the list");
    let (documented, after) = rest.split_once("<!-- end -->").expect("the list has an end");
    if documented != list && std::env::var_os("UPDATE_DOCS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
        std::fs::write(path, format!("{before}{BEGIN}{list}<!-- end -->{after}")).expect("write docs/policy.md");
    } else {
        assert!(documented == list, "docs/policy.md is old: run UPDATE_DOCS=1 cargo test -p agent-monitor-policy");
    }
}
