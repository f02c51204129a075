//! The filter that an agent's process carries from its first instruction: system calls that its policy does not allow fail
//! before anything happens.
//!
//! Built from the policy's image by the function that decides in the kernel, and installed by `enter`; `lead` installs one of
//! its own. This and the hand-over in `enter` are the only system calls outside of `bpf` that need unsafe code: no safe
//! interface installs a filter without `no_new_privs`, see docs/decisions/0008.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

use agent_monitor_common::class::Mode;
use agent_monitor_common::syscall::{self, Abi, X32_BIT};
use agent_monitor_policy::{ImageError, ImageView};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};
use serde::{Deserialize, Serialize};

/// What a filter lets pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Filter {
    /// Numbers of the calls that are allowed, ascending.
    #[schema(value_type = String)]
    pub allowed: Numbers,
    /// Calls of other interfaces are allowed.
    pub foreign: bool,
    /// What is not allowed passes too, and the kernel logs it.
    pub audit: bool,
}

/// Numbers of calls, ascending; as text with ranges: `0-334,424`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Numbers(Vec<u16>);

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The bytes of the policy are no image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The filter can't be compiled.
    #[error("compile the filter for system calls: {0}")]
    Compile(#[from] seccompiler::BackendError),
}

impl Filter {
    /// The filter of a policy.
    ///
    /// # Errors
    /// The bytes are no image.
    pub fn of_image(image: &[u8], mode: Mode) -> Result<Self, FilterError> {
        let view = ImageView::parse(image)?;
        let allowed = (0..=syscall::LAST).filter(|number| view.allows_syscall(Abi::Native, (*number).into()));
        Ok(Self {
            allowed: Numbers(allowed.collect()),
            // Rules name all of them or none, so one stands for all.
            foreign: view.allows_syscall(Abi::I386, 0),
            audit: mode == Mode::Audit,
        })
    }

    /// The filter that lets nothing pass but these calls.
    pub fn only(calls: &[i64]) -> Self {
        let mut numbers: Vec<u16> = calls.iter().filter_map(|call| u16::try_from(*call).ok()).collect();
        numbers.sort_unstable();
        Self { allowed: Numbers(numbers), foreign: false, audit: false }
    }

    /// The names of the calls that are allowed.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.allowed.0.iter().filter_map(|number| syscall::name(*number))
    }

    /// The names of the calls that are not allowed.
    pub fn denied_names(&self) -> impl Iterator<Item = &'static str> {
        let denied = (0..=syscall::LAST).filter(|number| self.allowed.0.binary_search(number).is_err());
        denied.filter_map(syscall::name)
    }

    /// The program that the kernel runs at each call.
    ///
    /// # Errors
    /// It can't be compiled.
    pub fn program(&self) -> Result<BpfProgram, FilterError> {
        let denied = if self.audit { SeccompAction::Log } else { SeccompAction::Errno(libc::EPERM.unsigned_abs()) };
        let foreign = if self.foreign { SeccompAction::Allow } else { denied.clone() };
        // Programs take an older way where a call does not exist, and give up where they may not make it.
        let unknown = if self.audit { SeccompAction::Log } else { SeccompAction::Errno(libc::ENOSYS.unsigned_abs()) };
        let mut program = vec![
            load(ARCH_OFFSET),
            jump(libc::BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
            give(foreign.clone()),
            load(NUMBER_OFFSET),
            jump(libc::BPF_JGE, X32_BIT, 0, 1),
            give(foreign),
            jump(libc::BPF_JGT, syscall::LAST.into(), 0, 1),
            give(unknown),
        ];
        let rules: BTreeMap<i64, _> = self.allowed.0.iter().map(|number| (i64::from(*number), Vec::new())).collect();
        let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, TargetArch::x86_64)?;
        program.extend(BpfProgram::try_from(filter)?);
        Ok(program)
    }
}

/// Puts a filter on the running thread, and on all that it starts or executes from now on. It can't be taken off.
///
/// Needs CAP_SYS_ADMIN, and so leaves `no_new_privs` as it is: setuid programs keep their user id.
///
/// # Errors
/// The kernel refused it.
pub fn install(program: &[sock_filter]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const sock_filter,
    }
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = Program { length, filter: program.as_ptr() };
    // SAFETY: the kernel reads the structure and as many instructions as it says, all of which live during the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Offsets in `struct seccomp_data` (`include/uapi/linux/seccomp.h`).
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
/// `include/uapi/linux/audit.h`
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump(test: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, value, then, otherwise)
}

fn give(action: SeccompAction) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action.into(), 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|one, next| one + 1 == *next);
        let mut comma = "";
        for run in runs {
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [one] => write!(f, "{comma}{one}")?,
                [] => {}
            }
            comma = ",";
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no list of numbers, like 0-334,424");
        let mut numbers: Vec<u16> = Vec::new();
        for run in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
            if first > last || last > syscall::LAST || numbers.last().is_some_and(|before| *before >= first) {
                return Err(wrong());
            }
            numbers.extend(first..=last);
        }
        Ok(Self(numbers))
    }
}

impl TryFrom<String> for Numbers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Numbers> for String {
    fn from(numbers: Numbers) -> Self {
        numbers.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_monitor_policy::{Document, NoLibrary, Options, compile};

    fn filter(spec: &str, mode: Mode) -> Filter {
        let text = format!(
            "apiVersion: agent-monitor.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
        );
        let document = Document { path: "p".to_owned(), text };
        let policy =
            compile(document, &NoLibrary, &Options::default()).unwrap_or_else(|error| panic!("{error}")).policy;
        Filter::of_image(policy.image(1, &[]).expect("an image").as_bytes(), mode).expect("a filter")
    }

    /// What a program gives for a call: the few instructions that filters have.
    fn run(program: &[sock_filter], arch: u32, number: u32) -> u32 {
        let (mut at, mut register) = (0, 0);
        loop {
            let one = &program[at];
            let skip = |hit: bool| usize::from(if hit { one.jt } else { one.jf });
            at += 1 + match u32::from(one.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    register = if one.k == ARCH_OFFSET { arch } else { number };
                    0
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => skip(register == one.k),
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => skip(register >= one.k),
                code if code == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => skip(register > one.k),
                code if code == libc::BPF_JMP | libc::BPF_JA => one.k as usize,
                code if code == libc::BPF_RET | libc::BPF_K => return one.k,
                code => panic!("unknown instruction {code:#x}"),
            };
        }
    }

    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const LOG: u32 = libc::SECCOMP_RET_LOG;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn a_filter_decides_as_the_policy_does() {
        let filter = filter("syscalls: [{allow: ['@agent']}, {deny: [uname]}]", Mode::Enforce);
        let program = filter.program().expect("compiles");
        assert!(program.len() <= libc::BPF_MAXINSNS as usize);
        for number in 0..=syscall::LAST {
            let expected = if filter.allowed.0.contains(&number) { ALLOW } else { EPERM };
            assert_eq!(run(&program, AUDIT_ARCH_X86_64, number.into()), expected, "{number}");
        }
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, u32::from(syscall::LAST) + 1), ENOSYS);
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, X32_BIT), EPERM);
        assert_eq!(run(&program, AUDIT_ARCH_I386, 3), EPERM);
    }

    #[test]
    fn a_filter_without_calls_denies_all_and_foreign_ones_pass_by_their_group() {
        let program = filter("syscalls: [{allow: ['@foreign']}]", Mode::Enforce).program().expect("compiles");
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, 0), EPERM);
        assert_eq!([run(&program, AUDIT_ARCH_X86_64, X32_BIT | 1), run(&program, AUDIT_ARCH_I386, 3)], [ALLOW; 2]);
    }

    #[test]
    fn in_audit_mode_nothing_fails() {
        let program = filter("", Mode::Audit).program().expect("compiles");
        let mount = syscall::number("mount").expect("is known").into();
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, 0), ALLOW);
        for (arch, number) in [(AUDIT_ARCH_X86_64, mount), (AUDIT_ARCH_X86_64, 999), (AUDIT_ARCH_I386, 3)] {
            assert_eq!(run(&program, arch, number), LOG);
        }
    }

    #[test]
    fn numbers_become_text_and_come_back() {
        for (numbers, text) in [(vec![], ""), (vec![0, 1, 2, 5, 7, 8], "0-2,5,7-8"), (vec![470], "470")] {
            assert_eq!(Numbers(numbers.clone()).to_string(), text);
            assert_eq!(text.parse(), Ok(Numbers(numbers)));
        }
        for text in ["1,1", "2-1,1", "x", "1-", "471", "5,3"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }
}
