//! Any bytes as an event of the kernel programs: never a panic, and nothing read outside.
#![no_main]

use agent_monitor_common::event::Event;
use agent_monitor_policy::{describe_object, suggest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = Event::decode(bytes) {
        drop((event.fault(), event.builtin(), describe_object(event.class, event.object).to_string()));
        let (access, pid) = (event.header.access, event.header.pid);
        drop(suggest(event.class, access, event.object, event.new_object, pid));
    }
});
