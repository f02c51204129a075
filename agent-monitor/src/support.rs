//! What this kernel and this node can enforce, in words and as a sum.

use std::collections::BTreeMap;

use agent_monitor_common::hook::HOOKS;
use serde::Serialize;

use crate::bpf::{self, FeatureState, HookState, HookStatus, LoadError, Roots};

/// How much can be, or is, enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    None,
    /// The network alone.
    Partial,
    /// Everything.
    Full,
}

impl Level {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }

    /// The exit status of `doctor`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Full => 0,
            Self::Partial => 1,
            Self::None => 2,
        }
    }
}

/// One line of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What.
    pub feature: String,
    /// `available`, `not-enabled`, `not-built`, `missing`.
    pub state: &'static str,
    /// What was found.
    pub detail: String,
    /// How to get it, where it is not available.
    pub how: String,
    /// For a hook whose program was loaded: instructions that the verifier went through; it refuses more than a million.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_instructions: Option<u32>,
    /// For a hook whose program was loaded: instructions of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translated_instructions: Option<u32>,
}

/// What can be enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Support {
    /// Release of the kernel.
    pub kernel: String,
    /// The sum.
    pub enforcement: Level,
    /// Each feature.
    pub features: Vec<Line>,
}

impl Support {
    /// Asks the kernel.
    pub fn probe(roots: &Roots) -> Self {
        let features = bpf::probe(roots);
        let missing = |lsm: bool| {
            features.iter().any(|feature| feature.state != FeatureState::Available && for_lsm(&feature.name) == lsm)
        };
        let lines = features.iter().map(|feature| Line {
            feature: feature.name.clone(),
            state: state_word(feature.state),
            detail: feature.detail.clone(),
            how: feature.how.clone(),
            verified_instructions: feature.size.and_then(|size| size.verified_instructions),
            translated_instructions: feature.size.and_then(|size| size.translated_instructions),
        });
        Self { kernel: kernel_release(), enforcement: sum(missing(false), missing(true)), features: lines.collect() }
    }
}

/// Release of the running kernel.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Why the programs could not be loaded; hooks with the same trouble are one line.
pub fn reason(error: &LoadError) -> String {
    match error {
        LoadError::Hooks(hooks) => {
            let lines: Vec<String> = by_trouble(hooks)
                .iter()
                .map(|(trouble, names)| format!("\n  {trouble}: {}", names.join(", ")))
                .collect();
            format!("{} of {} hooks can't be used:{}", hooks.len(), HOOKS.len(), lines.concat())
        }
        other => other.to_string(),
    }
}

fn by_trouble(hooks: &[HookState]) -> BTreeMap<&str, Vec<&'static str>> {
    let mut troubles: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for state in hooks {
        let trouble = match &state.status {
            HookStatus::Missing(why) | HookStatus::Refused(why) => why.as_str(),
            HookStatus::Loaded | HookStatus::Attached => continue,
        };
        troubles.entry(trouble).or_default().push(state.hook.name);
    }
    troubles
}

/// Why `run` and `daemon` do not start, with what is missing beside the hooks and how to get it.
pub fn refusal(why: &str, roots: &Roots) -> String {
    let support = Support::probe(roots);
    let mut text = format!("this kernel ({}) can't enforce what is asked for: {why}", support.kernel);
    let missing =
        support.features.iter().filter(|line| line.state != "available" && !line.feature.starts_with("hook "));
    for line in missing {
        text.push_str(&format!("\n  {}: {}; {}; {}", line.feature, line.state, line.detail, line.how));
    }
    text + match support.enforcement {
        Level::None => "",
        Level::Partial => "\n  with --allow-partial the network alone would be enforced",
        Level::Full => "\n  doctor finds nothing that is missing: please report this with the lines above",
    }
}

/// Whether the network can be enforced without this feature.
fn for_lsm(feature: &str) -> bool {
    match feature.strip_prefix("hook ") {
        Some(name) => HOOKS.iter().any(|hook| hook.name == name && hook.attach.is_lsm()),
        None => feature.starts_with("LSM "),
    }
}

fn state_word(state: FeatureState) -> &'static str {
    match state {
        FeatureState::Available => "available",
        FeatureState::NotEnabled => "not-enabled",
        FeatureState::NotBuilt => "not-built",
        FeatureState::Missing => "missing",
    }
}

fn sum(missing_for_all: bool, missing_for_lsm: bool) -> Level {
    match (missing_for_all, missing_for_lsm) {
        (true, _) => Level::None,
        (false, true) => Level::Partial,
        (false, false) => Level::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_with_the_same_trouble_are_one_line() {
        let states = HOOKS.iter().take(3).enumerate().map(|(index, hook)| {
            let why = if index == 1 { "no such hook" } else { "not permitted" };
            HookState { hook, status: HookStatus::Refused(why.to_owned()), size: None }
        });
        let text = reason(&LoadError::Hooks(states.collect()));
        let names = (HOOKS[0].name, HOOKS[1].name, HOOKS[2].name);
        let expected = format!("\n  no such hook: {}\n  not permitted: {}, {}", names.1, names.0, names.2);
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn the_network_needs_no_lsm_program() {
        assert!(for_lsm("hook file_open") && for_lsm("LSM programs (bpf in lsm=)"));
        assert!(!for_lsm("hook connect4") && !for_lsm("hook cgroup_mkdir") && !for_lsm("kernel types (BTF)"));
    }

    #[test]
    fn the_sum_is_what_is_left_to_enforce() {
        assert_eq!(sum(false, false), Level::Full);
        assert_eq!(sum(false, true), Level::Partial);
        assert_eq!(sum(true, false), Level::None);
        assert_eq!([Level::Full, Level::Partial, Level::None].map(Level::exit_code), [0, 1, 2]);
    }
}
