//! The `learner` command: flags, set-up, exit code. The binary of this name and `impresario learner` share it.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use impresario_common::config::{RunConfig, RunFlags};
use impresario_common::telemetry::{self, LogFlags, LogFormat};
use impresario_common::{kernels, process, signals};
use tokio::net::TcpListener;

use crate::checkpoint::{self, Checkpoint};
use crate::lives::{Life, RunRecord};
use crate::report::{Progress, RunDir, Summary};
use crate::{LearnerOptions, run};

/// Run a learner that actors connect to.
#[derive(Debug, clap::Args)]
pub struct LearnerCommand {
    /// Address to listen on; port 0 takes a free one, which the log names. There is no encryption and no
    /// authentication: beyond loopback, use a network that you trust
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5005")]
    listen: SocketAddr,

    #[command(flatten)]
    run: RunFlags,

    #[command(flatten)]
    log: LogFlags,
}

impl LearnerCommand {
    /// Serves and trains until the run is over or the process is asked to stop.
    ///
    /// # Errors
    /// If the configuration, the address or the run directory cannot be used, or training fails.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = RunConfig::from_flags(&self.run)?;
        let has_goal = config.run.until_return.is_a_goal();
        let options = prepare(config, &self.run, self.log)?;
        let runtime = runtime()?;
        let summary = runtime.block_on(async {
            let shutdown = signals::termination().context("cannot listen for signals")?;
            let listener = TcpListener::bind(self.listen)
                .await
                .with_context(|| format!("cannot listen on {}", self.listen))?;
            anyhow::Ok(run(options, listener, shutdown).await?)
        })?;
        println!("{}", summary.in_words());
        Ok(exit_code(&summary, has_goal))
    }
}

/// Exit code of a run that ended before its goal was reached.
const EXIT_NOT_SOLVED: u8 = 3;

/// 0 for a run that did what it was to do or was asked to stop, 3 for one that ended before its goal.
pub fn exit_code(summary: &Summary, has_goal: bool) -> ExitCode {
    let missed = has_goal && !summary.solved && summary.stopped_by == crate::Ending::OutOfSteps.as_str();
    if missed { ExitCode::from(EXIT_NOT_SOLVED) } else { ExitCode::SUCCESS }
}

/// Threads, run directory, logs and progress display for a run. Call it before any thread is started.
///
/// # Errors
/// If the run directory cannot be used or logs cannot be set up.
pub fn prepare(config: RunConfig, flags: &RunFlags, log: LogFlags) -> anyhow::Result<LearnerOptions> {
    let threads = config.learner.threads_in_force();
    process::limit_threads(threads);
    kernels::set_threads(threads);
    let progress = if log.log_format == LogFormat::Pretty { Progress::on_terminal() } else { None };
    match &progress {
        Some(progress) => telemetry::init_with_writer(log, progress.writer())?,
        None => telemetry::init(log)?,
    }
    let (run_dir, resume) = run_dir(flags, &config)?;
    Ok(LearnerOptions { config, run_dir, resume, progress })
}

/// The run's directory, new or as it is, and what the run goes on from: nothing but its name, if it was stopped before its
/// first checkpoint.
fn run_dir(flags: &RunFlags, config: &RunConfig) -> anyhow::Result<(RunDir, Option<Checkpoint>)> {
    let usage = |e: &dyn std::fmt::Display| process::Usage(e.to_string());
    let path = flags.run_dir.as_deref();
    let Some(path) = path.filter(|_| flags.resume) else {
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
        (config.run.seed, config.environment.clone(), config.rollout.clone(), config.policy.clone())
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
