//! What became of each hook of the table in this kernel.

use agent_monitor_common::hook::{Attach, HOOKS, Hook};
use serde::{Deserialize, Serialize};

/// A hook and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Row", try_from = "Row")]
pub struct HookState {
    /// Its row in the table.
    pub hook: &'static Hook,
    /// What became of it.
    pub status: HookStatus,
    /// How large its program is; `None` where it is not loaded.
    pub size: Option<ProgramSize>,
}

impl HookState {
    /// Whether its program does not run although something would pass for that: not so for a hook that this kernel may
    /// lack, and not before it was attached.
    #[must_use]
    pub fn lacking(&self) -> bool {
        match self.status {
            HookStatus::Attached => false,
            HookStatus::Missing(_) => !self.hook.optional(),
            HookStatus::Loaded => !self.on_request(),
            HookStatus::Refused(_) => true,
        }
    }

    /// Whether its program is in the kernel, attached or not.
    #[must_use]
    pub fn loaded(&self) -> bool {
        matches!(self.status, HookStatus::Loaded | HookStatus::Attached)
    }

    /// Whether its program runs only while a bound policy asks for it.
    #[must_use]
    pub fn on_request(&self) -> bool {
        matches!(self.hook.attach, Attach::TracepointOnRequest(_))
    }
}

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookStatus {
    /// Loaded, not attached yet.
    Loaded,
    /// Its program runs.
    Attached,
    /// It has no program, because the kernel has no such hook or it was left out: why.
    Missing(String),
    /// The kernel refused the program, or has the hook in another form: why.
    Refused(String),
}

/// How large a program is to the kernel: how near it is to being refused, and how much it adds to an operation at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSize {
    /// Instructions that the verifier went through on all paths together; it refuses a program with more than a million.
    pub verified_instructions: Option<u32>,
    /// Instructions of the program itself, as the kernel translated it.
    pub translated_instructions: Option<u32>,
}

/// [`HookState`] as one process tells it another, which has the same table.
#[derive(Serialize, Deserialize)]
struct Row {
    hook: String,
    status: HookStatus,
    size: Option<ProgramSize>,
}

impl From<HookState> for Row {
    fn from(state: HookState) -> Self {
        Self { hook: state.hook.name.to_owned(), status: state.status, size: state.size }
    }
}

impl TryFrom<Row> for HookState {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let hook = HOOKS.iter().find(|hook| hook.name == row.hook);
        let hook = hook.ok_or_else(|| format!("no hook `{}` is in the table", row.hook))?;
        Ok(Self { hook, status: row.status, size: row.size })
    }
}
