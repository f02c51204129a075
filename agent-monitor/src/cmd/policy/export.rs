//! `policy export`: the rules for system calls as a seccomp profile of the OCI runtime specification (its `linux.seccomp`),
//! which is also what containerd and podman take as a file.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{WRONG, image_of};
use crate::cmd::print;
use crate::config::Config;
use crate::seccomp::Filter;

/// Prints the profile of a policy.
pub fn seccomp(policy: &str, variables: BTreeMap<String, String>, config: &Config) -> Result<u8> {
    let Some((policy, image)) = image_of(policy, variables, config)? else { return Ok(WRONG) };
    let filter = Filter::of_image(image.as_bytes(), policy.mode())?;
    if let Some(warning) = warning(&filter) {
        eprintln!("warning: {warning}");
    }
    print::json(&profile(&filter))?;
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
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<&'static str>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<i32>,
}

/// What a profile can't say of foreign calls: runtimes give all rules to all architectures that it lists, by the names that
/// a call has there.
fn warning(filter: &Filter) -> Option<&'static str> {
    (filter.foreign && !filter.audit).then_some(
        "the profile denies calls that `@foreign` allows: a 32-bit or x32 call gets what the machine's own call of that name \
         gets, and one whose name the machine's own interface has not (mmap2, socketcall) fails with ENOSYS; add such names \
         to the profile, or run 32-bit programs by agent-monitor run",
    )
}

fn profile(filter: &Filter) -> Profile {
    let mut architectures = vec!["SCMP_ARCH_X86_64"];
    // Runtimes end a process that makes a call of an architecture that is not listed; in audit mode nothing may fail.
    if filter.foreign || filter.audit {
        architectures.extend(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    }
    let allowed = Rule { names: filter.names().collect(), action: "SCMP_ACT_ALLOW", errno_ret: None };
    let denied = Rule {
        // What is not named is newer, and programs take an older way where a call does not exist.
        names: if filter.audit { Vec::new() } else { filter.denied_names().collect() },
        action: "SCMP_ACT_ERRNO",
        errno_ret: Some(libc::EPERM),
    };
    Profile {
        default_action: if filter.audit { "SCMP_ACT_LOG" } else { "SCMP_ACT_ERRNO" },
        default_errno_ret: (!filter.audit).then_some(libc::ENOSYS),
        architectures,
        // The specification wants no rule without names.
        syscalls: [allowed, denied].into_iter().filter(|rule| !rule.names.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_monitor_common::syscall;

    fn filter(calls: &str, foreign: bool, audit: bool) -> Filter {
        Filter { allowed: calls.parse().expect("numbers"), foreign, audit }
    }

    #[test]
    fn a_profile_has_the_form_of_the_specification() {
        let profile = serde_json::to_value(profile(&filter("0,39", false, false))).expect("serialises");
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(profile["architectures"], serde_json::json!(["SCMP_ARCH_X86_64"]));
        let allowed = serde_json::json!({"names": ["read", "getpid"], "action": "SCMP_ACT_ALLOW"});
        assert_eq!(profile["syscalls"][0], allowed);
    }

    #[test]
    fn a_known_call_fails_with_eperm_and_a_newer_one_does_not_exist() {
        let profile = profile(&filter("0,39", false, false));
        assert_eq!(profile.default_errno_ret, Some(libc::ENOSYS));
        let denied = profile.syscalls.get(1).expect("calls are denied");
        assert_eq!((denied.action, denied.errno_ret), ("SCMP_ACT_ERRNO", Some(libc::EPERM)));
        let known = (0..=syscall::LAST).filter_map(syscall::name);
        let expected: Vec<&str> = known.filter(|name| !["read", "getpid"].contains(name)).collect();
        assert_eq!(denied.names, expected);
    }

    #[test]
    fn in_audit_mode_nothing_fails_whatever_its_architecture() {
        for foreign in [false, true] {
            let filter = filter("0", foreign, true);
            let profile = profile(&filter);
            assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
            assert_eq!((profile.default_action, profile.default_errno_ret), ("SCMP_ACT_LOG", None));
            assert!(profile.syscalls.iter().all(|rule| rule.action == "SCMP_ACT_ALLOW"));
            assert_eq!(warning(&filter), None);
        }
    }

    #[test]
    fn foreign_calls_are_architectures_and_what_they_lack_is_told() {
        let foreign = filter("0", true, false);
        assert_eq!(profile(&foreign).architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        assert!(warning(&foreign).is_some_and(|text| text.contains("@foreign")));
        assert_eq!(warning(&filter("0", false, false)), None);
    }
}
