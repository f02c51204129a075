//! Any text as a pattern: never a panic, and never more work than the budget.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = agent_monitor_policy::check_pattern(text);
});
