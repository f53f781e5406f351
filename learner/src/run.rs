//! A learner's life: serve, train, report, and end in good order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use impresario_common::config::{RecordArrivals, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_common::security::trouble::FULL;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::UnrollLayout;
use impresario_common::wire::v1::learner_server::LearnerServer;
use impresario_common::wire::{FILE_DESCRIPTOR_SET, MAX_FRAME_BYTES};

use crate::access::{self, Access, Behind, Guard, Places};
use crate::accounting::Accounting;
use crate::algorithm::TrainError;
use crate::arrivals::{self, ArrivalLog};
use crate::broadcast::Broadcast;
use crate::checkpoint::{self, Checkpoint, CheckpointWriter, Retention};
use crate::intake::Intake;
use crate::lives::RunRecord;
use crate::memory::{self, MemoryEstimate};
use crate::operations;
use crate::report::{Recorder, Reporter, RunDir, Summary, SystemView, expose};
use crate::roster::{Rollout, Roster};
use crate::service::{LearnerService, SetAside};
use crate::session::{Ended, Ending, Session};
use crate::trainer::Trainer;

/// How often either side of a connection asks whether the other is still there, and how long it waits for the
/// answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Bytes of one stream that may be on their way before the receiver has taken them. Enough for 50 MB/s over 20 ms;
/// what is taken in further ahead has left the processor's caches when its turn comes.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of a connection.
pub(crate) const CONNECTION_WINDOW: u32 = 8 << 20;

/// How long open streams may take to end when everything is said.
const STREAMS_END: Duration = Duration::from_secs(1);

/// A learner that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The service failed.
    #[error("the gRPC service failed: {0}")]
    Service(#[from] tonic::transport::Error),
    /// A file cannot be written.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// A file of the run directory cannot be written.
    #[error(transparent)]
    RunDir(#[from] crate::report::RunDirError),
    /// The run may need more memory than there is.
    #[error("{0}")]
    Memory(String),
    /// Something else broke.
    #[error("{0}")]
    Internal(String),
}

/// What a learner needs to know.
#[derive(Debug)]
pub struct LearnerOptions {
    /// The run.
    pub config: RunConfig,
    /// Where it leaves its files.
    pub run_dir: RunDir,
    /// Where the run goes on from.
    pub resume: Option<Checkpoint>,
    /// The environment, where it was known at the start and memory judged by it ([`memory::judge`]).
    pub environment: Option<EnvironmentSpec>,
    /// Who may come.
    pub access: Access,
    /// Where metrics and health are asked for by whoever runs the machines.
    pub operations: Option<TcpListener>,
    /// Shows progress on a terminal.
    pub progress: Option<crate::report::Progress>,
}

/// Serves on `listener` and trains until the run is over or `shutdown` completes.
///
/// # Errors
/// If training or a file fails for good. What was trained until then is in the last checkpoint.
pub async fn run(
    options: LearnerOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, LearnerError> {
    let internal =
        |what: &str, error: &dyn std::fmt::Display| LearnerError::Internal(format!("{what}: {error}"));
    let LearnerOptions { config, run_dir, resume, environment: judged, access, operations, progress } =
        options;
    // Before anybody joins in vain.
    crate::device::open(config.learner.device).map_err(TrainError::from)?;
    let address = listener.local_addr().map_err(|e| internal("no address to listen on", &e))?;
    let record = run_dir.record()?;
    let broadcast = Arc::new(Broadcast::of_life(record.life() as u64));
    let totals = resume.as_ref().map(|checkpoint| checkpoint.totals.clone()).unwrap_or_default();
    let recorder = Arc::new(Recorder::new(totals));
    let (intake, roster) = company(&config, record, resume.as_ref())?;
    let service = LearnerService::new(roster.clone(), intake.clone(), broadcast.clone());
    let (stop_serving, stopped) = oneshot::channel::<()>();
    let scheme = access.scheme();
    let guard = Guard::new(access.token.clone());
    let mut server = tokio::spawn(serve(service, listener, access, async {
        // A dropped sender means the same.
        let _ = stopped.await;
    }));
    let mut serving = true;
    announce(&config, &run_dir, scheme, address);

    let reporter = Reporter::new(&config, &run_dir, recorder.clone(), progress)?;
    let view = || system_view(&config, &intake, &roster, &broadcast);
    let operations = operations.map(|listener| {
        let latest = reporter.latest();
        let (config, intake, roster, broadcast) =
            (config.clone(), intake.clone(), roster.clone(), broadcast.clone());
        let metrics =
            move || expose(latest.load().as_deref(), &system_view(&config, &intake, &roster, &broadcast));
        // It ends with this function: nothing waits for it.
        StopOnDrop(tokio::spawn(operations::keep_serving(metrics, guard, listener)))
    });
    let watching = intake.clone();
    let _watching = StopOnDrop(tokio::spawn(async move { watching.watch().await }));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(config.report.interval_seconds));
    ticks.tick().await;

    let mut environment = roster.environment();
    let mut training: Option<Training> = None;
    tokio::pin!(shutdown);
    let ended = loop {
        tokio::select! {
            () = &mut shutdown => break None,
            _ = ticks.tick() => reporter.tick(view()),
            known = environment.wait_for(Option::is_some), if training.is_none() => {
                let spec = known.ok().and_then(|known| known.clone());
                let spec = spec.ok_or_else(|| internal("roster", &"gone"));
                let started = spec.and_then(|spec| {
                    if judged.as_ref() != Some(&spec) {
                        check_memory(&config, &spec)?;
                    }
                    let parts = Parts { intake: &intake, roster: &roster, broadcast: &broadcast, recorder: &recorder };
                    start(&config, &run_dir, resume.as_ref(), &spec, parts)
                });
                match started {
                    Ok(started) => training = Some(started),
                    Err(error) => break Some(Err(error)),
                }
            }
            // Without it no actor could come or come back, and the trainer might wait for ever.
            served = &mut server => {
                serving = false;
                break Some(Err(match served {
                    Ok(Ok(())) => internal("the gRPC service", &"it has ended"),
                    Ok(Err(error)) => error.into(),
                    Err(panic) => internal("the gRPC service", &panic),
                }));
            }
            ended = ending(&mut training), if training.is_some() => break Some(ended),
        }
    };
    let last_view = view();
    // Stops the trainer if it still works, and tells every actor that the run is over.
    intake.finish();
    let grace = Duration::from_secs_f64(config.learner.grace_seconds);
    let (ended, last) = match ended {
        // The trainer's own ending.
        Some(Ok(ended)) => told(ended),
        Some(Err(failure)) if serving || training.is_none() => (Err(failure), None),
        Some(Err(failure)) => (Err(failure), ending(&mut training).await.ok().and_then(|ended| ended.last)),
        None => match ending(&mut training).await {
            Ok(ended) => told(ended),
            Err(failure) => (Err(failure), None),
        },
    };
    if tokio::time::timeout(grace, intake.departed()).await.is_err() {
        tracing::warn!(?grace, "some actors did not say goodbye in time; what they held counts as lost");
    }
    let accounting = intake.close_books();
    if let Some(last) = last {
        close_checkpoint(last, &run_dir, &config, &accounting, intake.rollouts()).await;
    }
    // With the accounts all streams have ended; what remains open after a moment is cut.
    drop(stop_serving);
    if serving && let Ok(served) = tokio::time::timeout(STREAMS_END, server).await {
        served.map_err(|panic| internal("the gRPC service", &panic))??;
    }
    drop(operations);
    let stopped_by = ended.as_ref().map_or("error", |ending| ending.as_str());
    let summary = reporter.finish(last_view, accounting, stopped_by)?;
    ended?;
    Ok(summary)
}

/// A task that ends when this goes out of scope.
struct StopOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for StopOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Books and roster of a run that begins, or goes on from `resume`.
fn company(
    config: &RunConfig,
    record: RunRecord,
    resume: Option<&Checkpoint>,
) -> Result<(Arc<Intake>, Arc<Roster>), LearnerError> {
    let internal = |e: &dyn std::fmt::Display| LearnerError::Internal(e.to_string());
    let lives: Vec<u64> = record.lives.iter().map(|life| life.policy_version).collect();
    let saved = resume.map(|checkpoint| checkpoint.actors.clone()).unwrap_or_default();
    let layout = match resume {
        Some(checkpoint) if record.takes_over_from(saved.life()) => {
            let environment = &checkpoint.environment;
            let policy = PolicySpec::of_run(config, environment).map_err(TrainError::from)?;
            Some(UnrollLayout::of_run(config, config.rollout.unroll_length, environment, &policy))
        }
        _ => None,
    };
    let intake = Arc::new(Intake::resumed(config, lives, saved.books.clone(), layout));
    let environment = resume.map(|checkpoint| checkpoint.environment.clone());
    let rollouts = resume.map(|checkpoint| checkpoint.rollouts.clone()).unwrap_or_default();
    let roster = Roster::resumed(record, config, environment, intake.clone(), saved, rollouts);
    Ok((
        intake,
        Arc::new(roster.map_err(|e| internal(&format!("the configuration has no form in JSON: {e}")))?),
    ))
}

/// Writes the last checkpoint again, now that all actors have left: with the run's final books, and where actors stood.
async fn close_checkpoint(
    mut last: Checkpoint,
    run_dir: &RunDir,
    config: &RunConfig,
    accounting: &Accounting,
    rollouts: Vec<Rollout>,
) {
    last.accounting = accounting.clone();
    last.actors = last.actors.left(accounting);
    last.rollouts = rollouts;
    let (folder, retention) = (run_dir.checkpoints(), Retention::of_run(config));
    let written = tokio::task::spawn_blocking(move || checkpoint::save(&folder, &last, retention)).await;
    match written {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!("the last checkpoint is without the final books: {error}"),
        Err(panic) => tracing::error!("the last checkpoint is without the final books: {panic}"),
    }
}

/// What the trainer's thread will leave.
type Training = oneshot::Receiver<Ended>;

/// Waits for the trainer's thread, if there is one.
async fn ending(training: &mut Option<Training>) -> Result<Ended, LearnerError> {
    let Some(training) = training else { return Ok(Ended { ending: Ok(Ending::Stopped), last: None }) };
    training
        .await
        .map_err(|_| LearnerError::Internal("the trainer's thread has panicked; its message is above".into()))
}

/// How training ended, and the last checkpoint.
fn told(ended: Ended) -> (Result<Ending, LearnerError>, Option<Checkpoint>) {
    (ended.ending.map_err(LearnerError::from), ended.last)
}

/// What the trainer's thread shares with the rest of the learner.
#[derive(Clone, Copy)]
struct Parts<'a> {
    intake: &'a Arc<Intake>,
    roster: &'a Arc<Roster>,
    broadcast: &'a Arc<Broadcast>,
    recorder: &'a Arc<Recorder>,
}

/// Starts the trainer's thread; the receiver gets what it leaves.
fn start(
    config: &RunConfig,
    run_dir: &RunDir,
    resume: Option<&Checkpoint>,
    spec: &EnvironmentSpec,
    parts: Parts<'_>,
) -> Result<Training, LearnerError> {
    let goal = config.run.until_return.threshold(spec.solved_return);
    // A run without a goal is still judged by what counts as solved.
    parts.recorder.set_solved_return(goal.or(spec.solved_return));
    run_dir.write_environment(spec)?;
    let mut trainer = Trainer::new(config, spec)?;
    if let Some(checkpoint) = resume {
        trainer.restore(checkpoint)?;
    }
    let arrivals = record_arrivals(config, run_dir, resume, spec)?;
    if let Some(log) = &arrivals {
        parts.intake.record_into(log.clone());
    }
    let session = Session {
        config: config.clone(),
        trainer,
        intake: parts.intake.clone(),
        roster: parts.roster.clone(),
        broadcast: parts.broadcast.clone(),
        recorder: parts.recorder.clone(),
        checkpoints: CheckpointWriter::start(run_dir.path(), Retention::of_run(config))
            .map_err(|e| LearnerError::Internal(format!("cannot start the checkpoint writer: {e}")))?,
        arrivals,
        goal,
        env_steps: resume.map_or(0, |checkpoint| checkpoint.env_steps),
    };
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("trainer".into())
        .spawn(move || {
            // Nobody listens any more if the learner itself is gone.
            let _ = tell.send(session.run());
        })
        .map_err(|e| LearnerError::Internal(format!("cannot start the trainer's thread: {e}")))?;
    Ok(ended)
}

/// Tells what the run may take of memory, and refuses one that cannot fit.
fn check_memory(config: &RunConfig, spec: &EnvironmentSpec) -> Result<(), LearnerError> {
    let estimate = MemoryEstimate::of_run(config, spec).map_err(TrainError::from)?;
    estimate.tell();
    match memory::available().and_then(|available| estimate.misfit(available)) {
        Some(misfit) => Err(LearnerError::Memory(misfit)),
        None => Ok(()),
    }
}

/// Begins the record of arrivals, if the configuration asks for one.
fn record_arrivals(
    config: &RunConfig,
    run_dir: &RunDir,
    resume: Option<&Checkpoint>,
    spec: &EnvironmentSpec,
) -> Result<Option<Arc<ArrivalLog>>, LearnerError> {
    if config.report.record_arrivals == RecordArrivals::Off {
        return Ok(None);
    }
    let internal = |e: &dyn std::fmt::Display| LearnerError::Internal(format!("cannot record arrivals: {e}"));
    let record = run_dir.record()?;
    let begin = arrivals::Begin {
        run_id: record.run_id.clone(),
        life: record.life() as u64,
        policy_version: resume.map_or(0, |checkpoint| checkpoint.policy_version),
        env_steps: resume.map_or(0, |checkpoint| checkpoint.env_steps),
        config: config.to_toml().map_err(|e| internal(&e))?,
        environment: toml::to_string(spec).map_err(|e| internal(&e))?,
        content: config.report.record_arrivals == RecordArrivals::Content,
    };
    let policy = PolicySpec::of_run(config, spec).map_err(TrainError::from)?;
    let layout = UnrollLayout::of_run(config, config.rollout.unroll_length, spec, &policy);
    let life = begin.life;
    let log = ArrivalLog::start(run_dir.path(), begin, layout).map_err(|e| internal(&e))?;
    if let Some(checkpoint) = resume {
        let origin = arrivals::origin_path(run_dir.path(), life);
        checkpoint::write(&origin, checkpoint).map_err(|e| internal(&e))?;
    }
    Ok(Some(Arc::new(log)))
}

/// Serves `service` to those whom `access` lets in, with health and reflection beside it, until `stopped` completes and all
/// streams have ended.
///
/// # Errors
/// If the transport fails.
pub async fn serve(
    service: LearnerService,
    listener: TcpListener,
    access: Access,
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LearnerServer<LearnerService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the compiled-in descriptors are valid");
    let limits = service.roster().limits();
    let message_bytes = limits.message_bytes;
    let places = Places { limit: limits.connections, name: "limits.connections", full: FULL };
    let guard = Guard::new(access.token);
    let learner = SetAside(LearnerServer::new(service).max_decoding_message_size(message_bytes));
    let incoming = access::incoming(listener, Behind::Grpc(access.tls), places, KEEPALIVE);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME_BYTES)
        .add_service(health_service)
        .add_service(InterceptedService::new(reflection, guard.clone()))
        .add_service(InterceptedService::new(learner, guard))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await
}

fn system_view(config: &RunConfig, intake: &Intake, roster: &Roster, broadcast: &Broadcast) -> SystemView {
    let view = intake.view();
    SystemView {
        accounting: view.accounting,
        queue_unrolls: view.queue_unrolls as u64,
        queue_bytes: view.queue_bytes,
        queue_capacity_bytes: config.learner.queue_bytes,
        actors_connected: view.actors_connected as u64,
        actors_joined: roster.joined(),
        workers: view.workers as u64,
        worker_time: view.worker_time,
        weights_bytes_sent: broadcast.bytes_sent(),
        unroll_bytes_received: view.bytes_admitted,
    }
}

fn announce(config: &RunConfig, run_dir: &RunDir, scheme: &str, address: SocketAddr) {
    tracing::info!(
        environment = config.environment.id,
        algorithm = config.algorithm.name(),
        seed = config.run.seed,
        %address,
        run_dir = %run_dir.path().display(),
        "learner listens on {address}: start actors with `actor --learner {scheme}://{address}`",
    );
}
