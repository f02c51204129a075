//! What this kernel and this node can enforce, found by asking the kernel and never by its version.

use super::error::LoadError;
use super::hook::{HookStatus, ProgramSize};
use super::load::{self, LoadOptions, Roots};
use agent_monitor_common::hook::HOOKS;
use agent_monitor_common::limit::BINDINGS;

/// Whether something can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureState {
    /// It can.
    Available,
    /// The kernel has it, and it is switched off.
    NotEnabled,
    /// The kernel was built without it.
    NotBuilt,
    /// It is not there, or refused.
    Missing,
}

/// A line of `doctor`.
#[derive(Clone, Debug)]
pub struct Feature {
    /// What.
    pub name: String,
    /// Whether it can be used.
    pub state: FeatureState,
    /// What was found.
    pub detail: String,
    /// How to get it where it is not available.
    pub how: String,
    /// How large the program of a hook is.
    pub size: Option<ProgramSize>,
}

/// All features, in the order in which they build on each other.
#[must_use]
pub fn probe(roots: &Roots) -> Vec<Feature> {
    let mut features = vec![btf(roots), lsm(roots), cgroup(roots), seccomp()];
    let options = LoadOptions { partial: false, bindings: BINDINGS, roots: roots.clone(), pins: None };
    match load::open(&options, &[]) {
        Ok(loaded) => features.extend(loaded.hooks.iter().map(|state| {
            let (found, detail, how) = match &state.status {
                HookStatus::Loaded | HookStatus::Attached => {
                    (FeatureState::Available, state.hook.purpose.to_owned(), String::new())
                }
                HookStatus::Missing(why) if let Some(reason) = state.hook.absent => {
                    (FeatureState::Available, format!("not needed: {why}, and {reason}"), String::new())
                }
                HookStatus::Missing(why) => (FeatureState::Missing, why.clone(), "use a kernel that has it".to_owned()),
                HookStatus::Refused(why) => (FeatureState::Missing, why.clone(), refused_how(why)),
            };
            Feature { size: state.size, ..hook_feature(state.hook.name, found, detail, how) }
        })),
        Err(error) => features.extend(HOOKS.iter().map(|hook| {
            hook_feature(hook.name, FeatureState::Missing, first_line(&error), "see the lines above".to_owned())
        })),
    }
    features
}

fn hook_feature(name: &str, state: FeatureState, detail: String, how: String) -> Feature {
    Feature { name: format!("hook {name}"), state, detail, how, size: None }
}

fn refused_how(why: &str) -> String {
    if why.contains("does not let anybody load") {
        "run as root on a host that is not restricted, or in a virtual machine of your own".to_owned()
    } else {
        "report the lines above with the version of the kernel".to_owned()
    }
}

fn first_line(error: &LoadError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn btf(roots: &Roots) -> Feature {
    let path = roots.sys.join("kernel/btf/vmlinux");
    let found = path.exists();
    Feature {
        name: "kernel types (BTF)".into(),
        state: if found { FeatureState::Available } else { FeatureState::NotBuilt },
        detail: path.display().to_string(),
        how: if found { String::new() } else { "use a kernel with CONFIG_DEBUG_INFO_BTF=y".into() },
        size: None,
    }
}

fn lsm(roots: &Roots) -> Feature {
    let path = roots.sys.join("kernel/security/lsm");
    let (state, detail) = match std::fs::read_to_string(&path) {
        Ok(list) if list.trim().split(',').any(|name| name == "bpf") => {
            (FeatureState::Available, list.trim().to_owned())
        }
        Ok(list) => (FeatureState::NotEnabled, format!("the kernel runs {}", list.trim())),
        Err(error) => (FeatureState::Missing, format!("read {}: {error}; mount securityfs there", path.display())),
    };
    let how = match state {
        FeatureState::Available => String::new(),
        FeatureState::NotEnabled => {
            format!("add bpf to the kernel's command line: lsm={},bpf", detail.trim_start_matches("the kernel runs "))
        }
        _ => "mount -t securityfs securityfs /sys/kernel/security".into(),
    };
    Feature { name: "LSM programs (bpf in lsm=)".into(), state, detail, how, size: None }
}

fn cgroup(roots: &Roots) -> Feature {
    let found = roots.cgroup.join("cgroup.controllers").exists();
    Feature {
        name: "unified cgroup hierarchy".into(),
        state: if found { FeatureState::Available } else { FeatureState::Missing },
        detail: roots.cgroup.display().to_string(),
        how: if found { String::new() } else { format!("mount -t cgroup2 cgroup2 {}", roots.cgroup.display()) },
        size: None,
    }
}

fn seccomp() -> Feature {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let found = std::fs::read_to_string(path);
    let available = found.is_ok();
    let detail = "`run` starts commands under a filter: a call that is not allowed fails, and is not recorded";
    Feature {
        name: "system calls by filter (seccomp)".into(),
        state: if available { FeatureState::Available } else { FeatureState::NotBuilt },
        detail: found.map_or_else(|error| format!("read {path}: {error}"), |_| detail.to_owned()),
        how: if available { String::new() } else { "use a kernel with CONFIG_SECCOMP_FILTER=y, and mount proc".into() },
        size: None,
    }
}
