//! `impresario train`: a learner in this process, actors as processes of their own, loopback gRPC between them.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use impresario_actor::env::gymnasium::interpreter::PythonFlag;
use impresario_actor::env::registry::Registry;
use impresario_actor::env::source::Environments;
use impresario_common::config::{RunConfig, RunFlags};
use impresario_common::security::token::TOKEN_VARIABLE;
use impresario_common::telemetry::LogFlags;
use impresario_common::{process, signals};
use impresario_learner::command::Company;
use impresario_learner::report::Summary;
use impresario_learner::{LearnerOptions, command};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

/// Seconds that an actor keeps trying when this process has vanished without a word.
const ORPHAN_SECONDS: u32 = 10;

/// An actor that failed within this time of its start failed to start.
const START_UP: Duration = Duration::from_secs(5);

/// Starts in a row that may fail before the run is given up.
const MAX_FAILED_STARTS: u32 = 3;

/// An actor that leaves in peace was told that the run is over, unless the run goes on for longer than its own
/// time for farewells and this.
const RUN_GOES_ON: Duration = Duration::from_secs(2);

/// Flags of `impresario train`.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainCommand {
    /// Actor processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    actors: u32,

    #[command(flatten)]
    run: RunFlags,

    #[command(flatten)]
    python: PythonFlag,

    #[command(flatten)]
    log: LogFlags,
}

impl TrainCommand {
    /// Trains until solved, out of steps, or asked to stop.
    pub(crate) fn run(self, registry: &Registry) -> anyhow::Result<ExitCode> {
        let mut config = RunConfig::from_flags(&self.run)?;
        // All start together, so that a run does not depend on which process came up first.
        let actors = self.actors as usize;
        if config.learner.wait_for_actors > actors {
            return Err(process::Usage(format!(
                "learner.wait_for_actors is {}, and {actors} actors would wait for the others for ever: start as many with \
                 --actors, or lower it",
                config.learner.wait_for_actors
            ))
            .into());
        }
        config.learner.wait_for_actors = actors;
        config.validate()?;
        let environments = Environments::new(registry.clone(), &self.python);
        let environment =
            environments.find(&config.environment).map_err(|e| process::Usage(e.to_string()))?;
        let stacked = environment.spec().stacked(config.environment.frame_stack);
        stacked.map_err(|e| process::Usage(e.to_string()))?;
        let has_goal = config.run.until_return.is_a_goal();
        let rollout = &config.rollout;
        let columns = rollout.envs_per_actor / rollout.workers_per_actor;
        let company = Company { environment: Some(environment.spec().clone()), columns };
        let options = command::prepare(config, &self.run, self.log, company)?;
        let summary = command::runtime()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot bind a loopback port")?;
            let url = format!("http://{}", listener.local_addr()?);
            train(options, listener, Troupe { url, actors: self.actors, python: self.python, log: self.log })
                .await
        })?;
        println!("{}", summary.in_words());
        Ok(command::exit_code(&summary, has_goal))
    }
}

/// The actors of a run.
#[derive(Debug, Clone)]
struct Troupe {
    /// The learner's address.
    url: String,
    actors: u32,
    python: PythonFlag,
    log: LogFlags,
}

async fn train(options: LearnerOptions, listener: TcpListener, troupe: Troupe) -> anyhow::Result<Summary> {
    let stopped = signals::termination().context("cannot listen for signals")?;
    let (give_up, given_up) = oneshot::channel();
    let (over, run_over) = watch::channel(false);
    let farewells = Duration::from_secs_f64(options.config.learner.grace_seconds) + RUN_GOES_ON;
    let keeper = tokio::spawn(async move {
        if let Err(error) = keep_actors(&troupe, farewells, &run_over).await {
            // The learner may have ended by itself.
            let _ = give_up.send(error);
        }
    });
    let mut failure = None;
    let shutdown = async {
        tokio::select! {
            () = stopped => {}
            Ok(error) = given_up => failure = Some(error),
        }
    };
    let summary = impresario_learner::run(options, listener, shutdown).await;
    over.send_replace(true);
    // Actors that were told that the run is over leave by themselves; dropping the rest kills them.
    let _ = tokio::time::timeout(Duration::from_secs(5), keeper).await;
    match failure {
        Some(error) => Err(error),
        None => command::outcome(summary),
    }
}

/// Runs `actors` actor processes, starting those anew that end before the run is over.
async fn keep_actors(
    troupe: &Troupe,
    farewells: Duration,
    run_over: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for number in 0..troupe.actors {
        let (troupe, run_over) = (troupe.clone(), run_over.clone());
        running.spawn(async move { keep_actor(&troupe, number, farewells, run_over).await });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("an actor's watcher failed")??;
    }
    Ok(())
}

async fn keep_actor(
    troupe: &Troupe,
    number: u32,
    farewells: Duration,
    mut run_over: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut failed_starts = 0;
    loop {
        let started = Instant::now();
        let status = start_actor(troupe)?.wait().await.context("cannot wait for an actor")?;
        if status.success() {
            tokio::select! {
                _ = run_over.wait_for(|&over| over) => return Ok(()),
                () = tokio::time::sleep(farewells) => {}
            }
            tracing::warn!(number, "an actor process was told to stop: starting another");
            continue;
        }
        if *run_over.borrow() {
            return Ok(());
        }
        failed_starts = if started.elapsed() < START_UP { failed_starts + 1 } else { 0 };
        if failed_starts == MAX_FAILED_STARTS {
            bail!(
                "actor {number} failed {MAX_FAILED_STARTS} times in a row right after its start ({status})"
            );
        }
        tracing::warn!(number, "an actor process failed ({status}): starting another");
    }
}

fn start_actor(troupe: &Troupe) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(&program);
    if let Some(python) = &troupe.python.python {
        command.env("IMPRESARIO_PYTHON", python);
    }
    command
        .args(["actor", "--learner", &troupe.url, "--give-up-after", &ORPHAN_SECONDS.to_string()])
        .args(["--log-format", troupe.log.log_format.as_str()])
        // This run's learner is on loopback and knows no token, whatever others on this machine do.
        .env_remove(TOKEN_VARIABLE)
        // Its comings and goings are in the learner's log.
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}
