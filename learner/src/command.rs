//! The `learner` command: flags, set-up, exit code. The binary of this name and `impresario learner` share it.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use impresario_common::config::{EnvironmentSection, RunConfig, RunFlags};
use impresario_common::space::EnvironmentSpec;
use impresario_common::telemetry::{self, LogFlags, LogFormat};
use impresario_common::{kernels, process, signals};
use tokio::net::TcpListener;

use crate::access::{Access, AccessFlags};
use crate::checkpoint::{self, Checkpoint};
use crate::lives::{Life, RunRecord};
use crate::report::{Progress, RunDir, Summary};
use crate::{LearnerError, LearnerOptions, memory, run};

/// Run a learner that actors connect to.
#[derive(Debug, clap::Args)]
pub struct LearnerCommand {
    /// Address to listen on; port 0 takes a free one, which the log names. Beyond loopback it needs TLS or a token
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5005")]
    listen: SocketAddr,

    /// Address at which Prometheus may ask for /metrics, and probes for health over gRPC, without TLS; /metrics asks for the
    /// token if there is one. Beyond loopback it needs a token, or --insecure
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<SocketAddr>,

    /// Continues the run in --run-dir if there is one, and starts it otherwise: for whatever restarts learners by itself
    #[arg(long, requires = "run_dir", conflicts_with = "resume")]
    resume_or_start: bool,

    #[command(flatten)]
    access: AccessFlags,

    #[command(flatten)]
    run: RunFlags,

    #[command(flatten)]
    log: LogFlags,
}

impl LearnerCommand {
    /// Serves and trains until the run is over or the process is asked to stop. `known` tells spaces and limits of the environments that
    /// this program knows, before an actor does.
    ///
    /// # Errors
    /// If the configuration, the address or the run directory cannot be used, or training fails.
    pub fn run(
        mut self,
        known: impl FnOnce(&EnvironmentSection) -> Option<EnvironmentSpec>,
    ) -> anyhow::Result<ExitCode> {
        if self.resume_or_start && self.run.run_dir.as_deref().is_some_and(|dir| RunDir::open(dir).is_ok()) {
            self.run.resume = true;
        }
        let access = self.access.load().map_err(|e| process::Usage(e.to_string()))?;
        let config = RunConfig::from_flags(&self.run)?;
        access.refuse_strangers(self.listen)?;
        if let Some(listen) = self.metrics_listen {
            access.refuse_strangers_to_metrics(listen)?;
        }
        let has_goal = config.run.until_return.is_a_goal();
        // Actors may have fewer copies than the configuration says, but no fewer than one.
        let company = Company { environment: known(&config.environment), columns: 1 };
        let mut options = prepare(config, &self.run, self.log, company)?;
        access.warn(self.listen);
        options.access = access;
        let runtime = runtime()?;
        let summary = runtime.block_on(async {
            let shutdown = signals::termination().context("cannot listen for signals")?;
            let listener = bind(self.listen).await?;
            if let Some(listen) = self.metrics_listen {
                let operations = bind(listen).await?;
                let metrics_address = operations.local_addr()?;
                tracing::info!(%metrics_address, "metrics and health at http://{metrics_address}");
                options.operations = Some(operations);
            }
            outcome(run(options, listener, shutdown).await)
        })?;
        println!("{}", summary.in_words());
        Ok(exit_code(&summary, has_goal))
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Exit code of a run that ended before its goal was reached.
const EXIT_NOT_SOLVED: u8 = 3;

/// 0 for a run that did what it was to do or was asked to stop, 3 for one that ended before its goal.
pub fn exit_code(summary: &Summary, has_goal: bool) -> ExitCode {
    let missed = has_goal && !summary.solved && summary.stopped_by == crate::Ending::OutOfSteps.as_str();
    if missed { ExitCode::from(EXIT_NOT_SOLVED) } else { ExitCode::SUCCESS }
}

/// How a run ended. One that was refused for want of memory is a mistake in the configuration.
///
/// # Errors
/// If it failed.
pub fn outcome(ended: Result<Summary, LearnerError>) -> anyhow::Result<Summary> {
    match ended {
        Err(LearnerError::Memory(misfit)) => Err(process::Usage(misfit).into()),
        ended => Ok(ended?),
    }
}

/// What is known of a run's actors before they join.
#[derive(Debug, Clone)]
pub struct Company {
    /// Spaces and limits of their environment, if the program knows it.
    pub environment: Option<EnvironmentSpec>,
    /// Environment copies that each of their workers has at least.
    pub columns: usize,
}

/// Threads, logs, progress display and run directory for a run that memory is enough for. Call it before any thread is started.
///
/// # Errors
/// If the run can be seen not to go well, the run directory cannot be used, or logs cannot be set up.
pub fn prepare(
    config: RunConfig,
    flags: &RunFlags,
    log: LogFlags,
    company: Company,
) -> anyhow::Result<LearnerOptions> {
    let threads = config.learner.threads_in_force();
    process::limit_threads(threads);
    kernels::set_threads(threads);
    let progress = if log.log_format == LogFormat::Pretty { Progress::on_terminal() } else { None };
    match &progress {
        Some(progress) => telemetry::init_with_writer(log, progress.writer())?,
        None => telemetry::init(log)?,
    }
    let Company { mut environment, columns } = company;
    let (run_dir, resume) = run_dir(flags, &config, |checkpoint| {
        if let Some(checkpoint) = checkpoint {
            environment = Some(checkpoint.environment.clone());
        }
        memory::judge(&config, environment.as_ref(), columns).map_err(process::Usage)
    })?;
    let access = Access::default();
    Ok(LearnerOptions { config, run_dir, resume, environment, access, operations: None, progress })
}

/// The run's directory, new or as it is, and what the run goes on from: nothing but its name, if it was stopped before its
/// first checkpoint. Before anything is written `judge` may refuse the run in the light of the checkpoint.
fn run_dir(
    flags: &RunFlags,
    config: &RunConfig,
    judge: impl FnOnce(Option<&Checkpoint>) -> Result<(), process::Usage>,
) -> anyhow::Result<(RunDir, Option<Checkpoint>)> {
    let usage = |e: &dyn std::fmt::Display| process::Usage(e.to_string());
    let path = flags.run_dir.as_deref();
    let Some(path) = path.filter(|_| flags.resume) else {
        judge(None)?;
        return Ok((RunDir::create(path, config).map_err(|e| usage(&e))?, None));
    };
    let run_dir = RunDir::open(path).map_err(|e| usage(&e))?;
    let former = run_dir.read_config().map_err(|e| usage(&e))?;
    let folder = run_dir.checkpoints();
    let checkpoint = checkpoint::latest(&folder)?;
    match &checkpoint {
        Some((file, checkpoint)) => tracing::info!(
            env_steps = checkpoint.env_steps,
            policy_version = checkpoint.policy_version,
            "going on from {}",
            file.display()
        ),
        None if checkpoint::paths(&folder)?.is_empty() => {
            tracing::warn!("{} holds no checkpoint yet: the run begins again", path.display());
        }
        None => {
            let damaged = format!(
                "{} holds no checkpoint that is whole; the log says what is wrong with each",
                folder.display()
            );
            return Err(process::Usage(damaged).into());
        }
    }
    let checkpoint = checkpoint.map(|(_, checkpoint)| checkpoint);
    judge(checkpoint.as_ref())?;
    let mut record = RunRecord::read(path).map_err(|e| usage(&e))?.unwrap_or_default();
    record.lives.push(Life {
        policy_version: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.policy_version),
        takes_actors_over: concerns_actors_alike(&former, config),
    });
    record.write(path)?;
    run_dir.write_config(config)?;
    Ok((run_dir, checkpoint))
}

/// Whether actors that were told the one configuration may go on under the other.
fn concerns_actors_alike(former: &RunConfig, now: &RunConfig) -> bool {
    let concern = |config: &RunConfig| {
        let seed_and_lag = (config.run.seed, config.learner.max_policy_lag);
        (seed_and_lag, config.environment.clone(), config.rollout.clone(), config.policy.clone())
    };
    concern(former) == concern(now)
}

/// The runtime for a learner's streams; arithmetic has threads of its own.
///
/// # Errors
/// If threads cannot be started.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("streams").enable_all().build()
}
