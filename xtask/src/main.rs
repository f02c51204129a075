//! Everything a developer types: `cargo xtask COMMAND`. Reads the command line and hands over to the command's module.

mod apt;
mod build;
mod ci;
mod demo;
mod fuzz;
mod kernel;
mod process;
mod setup;
mod soak;
mod support;
mod test;
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
    /// Install what building and testing needs and this machine lacks
    Setup(setup::Options),
    /// Build agent-monitor and the scenarios as static programs
    Build(build::Options),
    /// Run a command in a virtual machine, on one or more kernels
    Vm(vm::Options),
    /// Run the checks that must hold before a change lands
    Ci(ci::Options),
    /// Set up, then run the checks; or all kernels of Debian, or the hard runs
    Test(test::Options),
    /// Show what agent-monitor does: what an agent may do, what it may not, and how that is told
    Demo(demo::Options),
    /// Let agents, policies, daemons and followers come and go for half an hour
    Soak(soak::Options),
    /// Run each fuzz target for a while
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Workspace::find().and_then(|workspace| match &cli.command {
        Command::Setup(options) => setup::all(&workspace, options),
        Command::Build(_) => build::run(&workspace),
        Command::Vm(options) => vm::run(&workspace, options),
        Command::Ci(options) => ci::run(&workspace, options),
        Command::Test(options) => test::run(&workspace, options),
        Command::Demo(options) => demo::run(&workspace, options),
        Command::Soak(options) => soak::run(&workspace, options),
        Command::Fuzz(options) => fuzz::run(&workspace, options),
    });
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(vm::FAILED)
    })
}
