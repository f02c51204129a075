//! Preparing in another process. Tens of megabytes of the kernel's types are read for it, in small pieces between which
//! something always stays: what a process of its own has read goes with that process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::hook::HookState;
use super::load::LoadOptions;
use super::pin::Place;
use super::prepare::{self, Prepared};

/// What the other process says on its standard output: [`Prepared`], or why there is nothing.
type Answer = Result<Told, Refusal>;

#[derive(Serialize, Deserialize)]
struct Told {
    pins: OsString,
    earlier: Vec<OsString>,
    taken_over: bool,
    hooks: Vec<HookState>,
    replaces: Option<String>,
}

/// A [`LoadError`], as far as its reader tells one from another.
#[derive(Serialize, Deserialize)]
enum Refusal {
    Hooks(Vec<HookState>),
    Pins(String),
    Other(String),
}

/// Has this program prepare what is pinned, as `load` in a process of its own that ends with this one.
pub fn prepare(place: &Place, options: &LoadOptions) -> Result<Prepared, LoadError> {
    let failed = |error: io::Error| LoadError::Object(format!("the process that loads them: {error}"));
    let mut command = Command::new("/proc/self/exe");
    command.args(words(options)).arg("--parent").arg(std::process::id().to_string());
    // With the lock on its standard input the place is held until that process is gone as well.
    command.stdin(place.lock().map_err(failed)?).stderr(Stdio::inherit());
    let output = command.output().map_err(failed)?;
    let answer = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    let answer = answer.unwrap_or_else(|| Err(Refusal::Other(ended(output.status))));
    let told: Told = answer.map_err(|refusal| {
        // One that was killed has left what it had made.
        if let Err(error) = place.standing() {
            tracing::warn!("{error}");
        }
        LoadError::from(refusal)
    })?;
    Ok(Prepared {
        pins: place.named(&told.pins),
        earlier: told.earlier.iter().map(|name| place.named(name)).collect(),
        taken_over: told.taken_over,
        hooks: told.hooks,
        replaces: told.replaces,
    })
}

fn ended(status: ExitStatus) -> String {
    format!("load the kernel programs: the process that loads them ended ({status}) and did not say what it has loaded")
}

/// The command line of that process, without the program's name.
pub fn words(options: &LoadOptions) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["load".into()];
    words.extend(options.partial.then(|| "--partial".into()));
    words.extend(["--bindings".into(), options.bindings.to_string().into()]);
    words.extend(["--sys".into(), options.roots.sys.clone().into()]);
    words.extend(["--cgroup".into(), options.roots.cgroup.clone().into()]);
    words.extend(options.pins.iter().flat_map(|pins| ["--bpffs".into(), pins.clone().into()]));
    words
}

/// What that process does: prepares at the place whose lock it was given, and tells `output`.
///
/// # Errors
/// The descriptor is not the lock of that place, or nobody hears the answer: nothing was made then.
pub fn serve(options: &LoadOptions, lock: OwnedFd, mut output: impl Write) -> io::Result<()> {
    let bpffs = options.pins.as_deref().ok_or_else(|| io::Error::other("no place to pin at was given"))?;
    let prepared = Place::inherited(bpffs, File::from(lock)).and_then(|place| prepare::prepare(&place, options));
    let answer: Answer = match &prepared {
        Ok(prepared) => Ok(Told {
            pins: prepared.pins.file_name(),
            earlier: prepared.earlier.iter().map(super::pin::Pins::file_name).collect(),
            taken_over: prepared.taken_over,
            hooks: prepared.hooks.clone(),
            replaces: prepared.replaces.clone(),
        }),
        Err(error) => Err(Refusal::from(error)),
    };
    serde_json::to_writer(&mut output, &answer)?;
    output.flush()?;
    // From here on they are the other's to finish or to remove.
    prepared.into_iter().for_each(|prepared| prepared.pins.leave());
    Ok(())
}

impl From<&LoadError> for Refusal {
    fn from(error: &LoadError) -> Self {
        match error {
            LoadError::Hooks(hooks) => Self::Hooks(hooks.clone()),
            other if other.is_about_pins() => Self::Pins(other.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Refusal> for LoadError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Hooks(hooks) => Self::Hooks(hooks),
            Refusal::Pins(text) => Self::Told { text, about_pins: true },
            Refusal::Other(text) => Self::Told { text, about_pins: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::hook::HookStatus;
    use agent_monitor_common::hook::HOOKS;

    fn through(error: &LoadError) -> LoadError {
        let text = serde_json::to_string(&Refusal::from(error)).expect("it can be told");
        serde_json::from_str::<Refusal>(&text).expect("it can be read").into()
    }

    #[test]
    fn what_is_told_of_hooks_is_heard() {
        let status = HookStatus::Refused("line one\nline two".into());
        let state = HookState { hook: &HOOKS[0], status: status.clone(), size: None };
        let error = LoadError::Hooks(vec![state]);
        let LoadError::Hooks(heard) = through(&error) else { panic!("another error") };
        assert_eq!((heard[0].hook.id, &heard[0].status), (HOOKS[0].id, &status));
        assert_eq!(through(&error).to_string(), error.to_string());
    }

    #[test]
    fn an_error_says_the_same_and_means_the_same() {
        let pins = LoadError::OtherPins("0-1".into());
        let object = LoadError::Object("no room".into());
        for (error, about_pins) in [(pins, true), (object, false)] {
            let heard = through(&error);
            assert_eq!((heard.to_string(), heard.is_about_pins()), (error.to_string(), about_pins));
        }
    }

    #[test]
    fn a_hook_that_is_not_in_the_table_is_an_error() {
        let text = r#"{"Hooks":[{"hook":"none","status":"Attached","size":null}]}"#;
        let error = serde_json::from_str::<Refusal>(text).err().expect("it is refused");
        assert!(error.to_string().contains("no hook `none`"), "{error}");
    }
}
