//! Everything a developer types: `cargo xtask COMMAND`. Reads the command line and hands over to the command's module.

mod apt;
mod build;
mod kernel;
mod process;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Builds, boots, tests and shows agent-monitor", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build agent-monitor and the scenarios as static programs
    Build(build::Options),
    /// Run a command in a virtual machine, on one or more kernels
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Workspace::find().and_then(|workspace| match &cli.command {
        Command::Build(_) => build::run(&workspace),
        Command::Vm(options) => vm::run(&workspace, options),
    });
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(vm::FAILED)
    })
}
