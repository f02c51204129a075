//! Any bytes as a policy: never a panic; what compiles gives an image that reads.
#![no_main]

use agent_monitor_policy::{Document, ImageView, NoLibrary, Options, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let result = Document::from_bytes("fuzz.yaml", bytes.to_vec())
        .and_then(|document| compile(document, &NoLibrary, &Options::default()));
    match result {
        Ok(compiled) => {
            let image = compiled.policy.image(1, &[]).expect("compile() tries this");
            ImageView::parse(image.as_bytes()).expect("what is written is read");
        }
        Err(found) => drop(found.to_string()),
    }
});
