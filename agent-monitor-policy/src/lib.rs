//! The policy compiler: text to [`Policy`] (which cannot be wrong) to [`Image`] (bytes that the kernel programs read),
//! and what people ask about it: explain, test.
//!
//! ```text
//! Document -> read (all errors at once) -> rules -> machines (one minimal automaton a class) -> Policy -> Image
//! ```
//!
//! This crate does no I/O: documents come in as text, included ones through [`Library`], images go out as bytes.
#![forbid(unsafe_code)]

mod address;
pub mod cases;
mod compile;
mod diagnostic;
mod document;
mod explain;
mod fields;
mod image;
mod machine;
mod notes;
mod object;
pub mod operation;
mod pattern;
mod policy;
#[cfg(test)]
mod random;
mod read;
mod rule;
mod suggest;
pub mod syscall;
mod view;
mod yaml;

pub use compile::{Compiled, compile};
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity};
pub use document::{Document, Library, NoLibrary, Options, name_of};
pub use explain::{Explanation, explain};
pub use image::{Image, ImageError};
pub use object::{ObjectText, describe_object};
pub use operation::Operation;
pub use pattern::is_hidden;
pub use policy::{Policy, Protected};
pub use suggest::{is_of_another_process, suggest};
pub use view::{ImageView, RuleRef};

/// Identifies what compiles: builds that have the same make the same image of the same documents, variables and protected
/// paths.
pub const BUILD: &str = env!("AGENT_MONITOR_COMPILER");

/// Parses one pattern for paths and determinizes it: the entry of the fuzz target.
///
/// # Errors
/// What is wrong with it.
#[doc(hidden)]
pub fn check_pattern(text: &str) -> Result<usize, String> {
    struct Nothing;
    impl pattern::Variables for Nothing {
        fn value(&self, name: &str) -> Result<Option<String>, pattern::PatternError> {
            Err(pattern::PatternError::new(0, format!("variable `{name}` is not declared"), "declare it"))
        }
    }
    let graph = pattern::parse_path(text, &Nothing).map_err(|error| error.message)?;
    let mut budget = machine::Budget(64 << 20);
    machine::leaf(&graph, machine::Language::Path, machine::Label::BUILTIN, &mut budget)
        .map(|machine| machine.states())
        .map_err(|machine::TooLarge| "too large".to_owned())
}
