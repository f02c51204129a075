//! Why the programs are not loaded, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use agent_monitor_common::hook::HOOKS;
use aya::programs::ProgramError;

use super::hook::{HookState, HookStatus};
use super::map::MapError;

/// Why the programs are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF, or none that can be read.
    #[error("{0}: this kernel does not describe its types; use one with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(String),
    /// Fields that the programs read are not in this kernel.
    #[error("this kernel lacks {}: no build of agent-monitor supports it yet", .0.join(", "))]
    MissingFields(Vec<String>),
    /// The object was refused as a whole: a map could not be made.
    #[error("load the kernel programs: {0}")]
    Object(String),
    /// Hooks that must be there are not.
    #[error("{}", refused(.0))]
    Hooks(Vec<HookState>),
    /// The root of the cgroup hierarchy could not be opened.
    #[error("open the cgroup hierarchy {}: {error}; mount cgroup2 there", path.display())]
    Cgroup {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it could not be opened.
        error: std::io::Error,
    },
    /// A map of the object could not be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Programs of a build are pinned whose maps mean other things.
    #[error(
        "this node is guarded by programs that this version can't take over ({0}): start a daemon of that version, or end \
         enforcement with `agent-monitor daemon --uninstall`"
    )]
    OtherPins(String),
    /// The pins could not be read or changed.
    #[error("cannot {action} the pins {}: {error}", path.display())]
    Pins {
        /// Which.
        path: PathBuf,
        /// What was to be done with them.
        action: &'static str,
        /// Why it could not be.
        error: io::Error,
    },
    /// What another process says that was to load them.
    #[error("{text}")]
    Told {
        /// In its words.
        text: String,
        /// See [`Self::is_about_pins`].
        about_pins: bool,
    },
}

impl LoadError {
    /// Whether it is nothing that the kernel lacks, but what is pinned: going on with less would not help.
    #[must_use]
    pub fn is_about_pins(&self) -> bool {
        matches!(self, Self::Pins { .. } | Self::OtherPins(_) | Self::Told { about_pins: true, .. })
    }

    pub(super) fn pins(path: &Path, action: &'static str, error: io::Error) -> Self {
        Self::Pins { path: path.to_owned(), action, error }
    }
}

fn refused(hooks: &[HookState]) -> String {
    let line = |state: &HookState| match &state.status {
        HookStatus::Missing(why) => format!("hook {}: missing: {why}", state.hook.name),
        HookStatus::Refused(why) => format!("hook {}: refused: {why}", state.hook.name),
        HookStatus::Loaded | HookStatus::Attached => format!("hook {}", state.hook.name),
    };
    let lines: Vec<String> = hooks.iter().map(line).collect();
    format!("{} of {} hooks can't be used:\n{}", lines.len(), HOOKS.len(), lines.join("\n"))
}

/// A refusal in words, with the end of the verifier's, where it says why.
pub(super) fn explain(error: &ProgramError) -> String {
    const LAST_LINES: usize = 30;
    /// Who may not load programs gets EPERM; a program that the verifier refuses gets EACCES or another errno.
    const EPERM: i32 = 1;
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        if io_error.raw_os_error() == Some(EPERM) {
            return format!("{io_error}: this host does not let anybody load such programs");
        }
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        return format!(
            "{io_error}; the verifier's last words:\n{}",
            lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
        );
    }
    chain(error)
}

/// An error with all that caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
