//! The commands: each prints, and gives an exit status. Errors go to standard error and start with `error:`.

mod agents;
mod canary;
mod daemon;
mod doctor;
mod enter;
mod events;
mod load;
mod memory;
mod policy;
mod print;
mod run;
mod spare;
mod status;
mod verify;

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Cli, Color, Command, Global, LogLevel, RUN_FAILED, UNSUPPORTED};
use crate::config::Config;
use crate::daemon::StartError;

/// Exit status of any other failure.
const FAILED: u8 = 1;

/// Runs a command.
pub fn execute(cli: Cli) -> ExitCode {
    let color = use_color(&cli.global);
    let failure = match &cli.command {
        Command::Run(_) => RUN_FAILED,
        _ => FAILED,
    };
    // These are started by others of this program: no log, nothing but what they are for.
    let result = match cli.command {
        Command::Guard(options) => return run::guard(&options),
        Command::Lead(options) => return run::lead(&options),
        Command::Tend(options) => return run::tend(&options),
        Command::Enter(options) => return enter::enter(options),
        Command::Canary(options) => return canary::canary(&options),
        Command::Load(options) => return load::load(options),
        command => {
            log(&cli.global, color, matches!(command, Command::Daemon(_)));
            dispatch(command, &cli.global)
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(&error, color);
            let unsupported = matches!(error.downcast_ref::<StartError>(), Some(StartError::Unsupported(_)));
            ExitCode::from(if unsupported { UNSUPPORTED } else { failure })
        }
    }
}

fn dispatch(command: Command, global: &Global) -> Result<u8> {
    // What needs no configuration must not fail for a broken one.
    let config = || Config::load(global.config.as_deref());
    match command {
        Command::Run(options) => run::run(&config()?, &options),
        Command::Daemon(options) => daemon::daemon(&config()?, &options),
        Command::Status(options) => status::status(&config()?, &options),
        Command::Doctor(options) => doctor::doctor(&config()?, &options),
        Command::Agents(command) => agents::agents(&config()?, command),
        Command::Policy(command) => policy::policy(command, config),
        Command::Events(options) => events::events(&config()?, &options),
        Command::Verify(options) => verify::verify(config, &options),
        Command::Guard(_)
        | Command::Lead(_)
        | Command::Tend(_)
        | Command::Enter(_)
        | Command::Load(_)
        | Command::Canary(_) => unreachable!("these were run before"),
    }
}

/// A runtime for commands that wait for one thing at a time. It has the main thread only: a child whose life is tied to
/// the thread that started it lives as long as we do.
fn small_runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

/// Standard input, output or error, by its number.
fn standard(number: u8) -> BorrowedFd<'static> {
    match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    }
}

/// Ends this process when the process that started it ends.
///
/// # Errors
/// That one is gone already.
fn end_with(parent: u32) -> Result<()> {
    // Checked after it was asked for: it may have ended before.
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_err() || getppid().is_none_or(|found| found.as_raw_nonzero().get().unsigned_abs() != parent) {
        bail!("the process that started this one is gone");
    }
    Ok(())
}

fn use_color(global: &Global) -> bool {
    match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}

fn log(global: &Global, color: bool, daemon: bool) {
    let level = match global.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        // What happens is the daemon's to say; the other commands print it.
        LogLevel::Info if !daemon => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(color).with_target(false);
    subscriber.with_writer(std::io::stderr).init();
}

fn print_error(error: &anyhow::Error, color: bool) {
    let (on, off) = if color { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    print::error(&format!("{on}error:{off} {error:#}\n"));
}
