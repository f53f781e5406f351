//! The actor as a command: the binary `actor` and `impresario actor` are both this.

use std::process::ExitCode;

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

impl ActorCommand {
    /// Acts until the run is over, or Ctrl-C or SIGTERM comes. Call it before any thread is started.
    ///
    /// # Errors
    /// If the actor cannot go on.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        // Workers are an actor's parallelism: arithmetic inside one of them stays on its thread.
        process::limit_threads(1);
        telemetry::init(self.log)?;
        let shutdown = async {
            if let Err(error) = signals::termination().await {
                tracing::error!("cannot listen for signals: {error}; the actor ends with the run");
                std::future::pending::<()>().await;
            }
        };
        let done = crate::runtime()?.block_on(crate::run(self.actor, Registry::native(), shutdown));
        let summary = match done {
            Ok(summary) => summary,
            Err(error @ (ActorError::Url { .. } | ActorError::Division { .. })) => {
                eprintln!("error: {error}");
                return Ok(ExitCode::from(process::EXIT_USAGE));
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
