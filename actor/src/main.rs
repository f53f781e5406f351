//! The actor's binary.

use std::process::ExitCode;

use clap::Parser;
use impresario_actor::ActorCommand;
use impresario_common::process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "actor", version)]
struct Cli {
    #[command(flatten)]
    command: ActorCommand,
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => process::exit(cli.command.run()),
        Err(message) => {
            // A closed terminal is no reason to end with another code.
            let _ = message.print();
            if message.use_stderr() { ExitCode::from(process::EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}
