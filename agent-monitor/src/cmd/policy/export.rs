//! `policy export`: the rules for system calls as a seccomp profile of the OCI runtime specification (its `linux.seccomp`),
//! which is also what containerd and podman take as a file.

use agent_monitor_common::class::Mode;
use agent_monitor_policy::{Options, compile};
use anyhow::{Context, Result};
use serde::Serialize;

use super::{WRONG, document};
use crate::cmd::print;
use crate::config::Config;
use crate::daemon::library::Files;
use crate::seccomp::Filter;

/// Prints the profile of a policy.
pub fn seccomp(policy: &str, variables: Vec<(String, String)>, config: &Config) -> Result<u8> {
    let options = Options { variables: variables.into_iter().collect(), allow_unset: false };
    let policy = match compile(document(policy, config)?, &Files::new(&config.policies_dir), &options) {
        Ok(compiled) => compiled.policy,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(WRONG);
        }
    };
    let image = policy.image(0, &[]).with_context(|| format!("policy {}", policy.name()))?;
    print::json(&profile(&Filter::of_image(image.as_bytes(), policy.mode())?, policy.mode()))?;
    Ok(0)
}

/// `linux.seccomp` of the OCI runtime specification (`config-linux.md`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<i32>,
    architectures: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Serialize)]
struct Rule {
    names: Vec<&'static str>,
    action: &'static str,
}

fn profile(filter: &Filter, mode: Mode) -> Profile {
    let audit = mode == Mode::Audit;
    let mut architectures = vec!["SCMP_ARCH_X86_64"];
    if filter.foreign {
        architectures.extend(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    }
    let names: Vec<&str> = filter.names().collect();
    // The specification wants no rule without names.
    let syscalls = if names.is_empty() { Vec::new() } else { vec![Rule { names, action: "SCMP_ACT_ALLOW" }] };
    Profile {
        default_action: if audit { "SCMP_ACT_LOG" } else { "SCMP_ACT_ERRNO" },
        default_errno_ret: (!audit).then_some(libc::EPERM),
        architectures,
        syscalls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(calls: &str, foreign: bool) -> Filter {
        Filter { allowed: calls.parse().expect("numbers"), foreign, audit: false }
    }

    #[test]
    fn a_profile_has_the_form_of_the_specification() {
        let text = serde_json::to_string(&profile(&filter("0,39", false), Mode::Enforce)).expect("serialises");
        let expected = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"#;
        assert_eq!(
            text,
            format!("{expected}{}", r#""syscalls":[{"names":["read","getpid"],"action":"SCMP_ACT_ALLOW"}]}"#)
        );
    }

    #[test]
    fn foreign_calls_are_architectures_and_audit_logs() {
        let profile = profile(&filter("", true), Mode::Audit);
        assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        assert!(profile.syscalls.is_empty() && profile.default_errno_ret.is_none());
        assert_eq!(profile.default_action, "SCMP_ACT_LOG");
    }
}
