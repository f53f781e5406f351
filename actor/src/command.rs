//! The actor as a command: the binary `actor` and `impresario actor` are both this.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use impresario_common::{process, signals, telemetry};

use crate::env::registry::Registry;
use crate::{ActorError, ActorOptions};

/// Runs copies of a learner's environment and streams the experience to it
#[derive(Debug, clap::Args)]
pub struct ActorCommand {
    #[command(flatten)]
    actor: ActorOptions,
    #[command(flatten)]
    log: telemetry::LogFlags,
}

/// Runs copies of a learner's environment and streams the experience to it.
#[derive(Debug, Parser)]
#[command(name = "actor", version)]
struct Cli {
    #[command(flatten)]
    command: ActorCommand,
}

/// The whole `main` of an actor that knows the environments of `registry`: reads the command line, acts, and says
/// what to exit with.
pub fn main_with(registry: Registry) -> ExitCode {
    match process::parse::<Cli>() {
        Ok(cli) => process::exit(cli.command.run(registry)),
        Err(code) => code,
    }
}

impl ActorCommand {
    /// Acts in an environment of `registry` until the run is over, or Ctrl-C or SIGTERM comes. Call it before any thread is started.
    ///
    /// # Errors
    /// If the actor cannot go on.
    pub fn run(self, registry: Registry) -> anyhow::Result<ExitCode> {
        // Workers are an actor's parallelism: arithmetic inside one of them stays on its thread.
        process::limit_threads(1);
        telemetry::init(self.log)?;
        let done = crate::runtime()?.block_on(async {
            let shutdown = signals::termination()?;
            std::io::Result::Ok(crate::run(self.actor, registry, shutdown).await)
        });
        let summary = match done.context("cannot listen for signals")? {
            Ok(summary) => summary,
            Err(error @ (ActorError::Url { .. } | ActorError::Security(_) | ActorError::Division { .. })) => {
                return Err(process::Usage(error.to_string()).into());
            }
            Err(error) => return Err(error.into()),
        };
        tracing::info!(
            "done: {} environment steps produced, {} acknowledged, dropped: {:?}",
            summary.produced_steps,
            summary.acknowledged_steps,
            summary.dropped_steps
        );
        Ok(ExitCode::SUCCESS)
    }
}
