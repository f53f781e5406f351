//! The `learner` binary.

use std::process::ExitCode;

use clap::Parser;
use impresario_common::process;
use impresario_learner::LearnerCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Impresario's learner: trains on what its actors send.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    command: LearnerCommand,
}

fn main() -> ExitCode {
    match process::parse::<Cli>() {
        // Environments are the actors'.
        Ok(cli) => process::exit(cli.command.run(|_| None)),
        Err(code) => code,
    }
}
