//! Running other programs: errors that name the program and what to do, and children that end when we do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program with our output; a failure is an error that says what was attempted.
pub fn run(command: &mut Command, attempt: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{attempt}: start {}", name(command)))?;
    if !status.success() {
        bail!("{attempt}: {} ended with {status}", name(command));
    }
    Ok(())
}

/// Runs a program and returns what it printed; a failure is an error with what it said on standard error.
pub fn output(command: &mut Command, attempt: &str) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{attempt}: start {}", name(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{attempt}: {} ended with {}: {}", name(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The directories of `PATH`, and those for administrators that a user's `PATH` may leave out.
pub fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from)).collect()
}

/// Finds a program in the directories of `search_path`.
pub fn find(program: &str) -> Option<PathBuf> {
    search_path().iter().map(|dir| dir.join(program)).find(|candidate| is_executable(candidate))
}

/// Finds a program, or says how to get it.
pub fn need(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("`{program}` is not installed; run `cargo xtask setup`"))
}

/// Whether a path is a file that may be executed.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command that the kernel kills when this process ends, whatever the way it ends. It must be spawned by the main
/// thread: the kernel watches the thread that spawned it.
pub fn dies_with_us(program: &Path) -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(need("setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    // A Ctrl-C is ours to answer, by ending the children in order.
    command.process_group(0);
    Ok(command)
}

/// A shell word that means exactly these bytes.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn name(command: &Command) -> String {
    let program: &OsStr = command.get_program();
    format!("`{}`", Path::new(program).display())
}

#[cfg(test)]
mod tests {
    use super::shell_quote;

    #[test]
    fn a_quoted_word_is_one_word_for_the_shell() {
        assert_eq!(shell_quote("--kernel=6.1"), "--kernel=6.1");
        assert_eq!(shell_quote("a b"), "'a b'");
        assert_eq!(shell_quote("it's"), r"'it'\''s'");
        assert_eq!(shell_quote(""), "''");
    }
}
