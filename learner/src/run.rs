//! A learner's life: serve, train, report, and end in good order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use impresario_common::config::RunConfig;
use impresario_common::space::EnvironmentSpec;
use impresario_common::wire::v1::learner_server::LearnerServer;
use impresario_common::wire::{FILE_DESCRIPTOR_SET, MAX_FRAME_BYTES};

use crate::access::{self, Access, Guard};
use crate::algorithm::TrainError;
use crate::broadcast::Broadcast;
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::intake::Intake;
use crate::operations;
use crate::report::{Recorder, Reporter, RunDir, Summary, SystemView, expose};
use crate::roster::Roster;
use crate::service::{LearnerService, SetAside};
use crate::session::{Ending, Session};
use crate::trainer::Trainer;

/// How often either side of a connection asks whether the other is still there, and how long it waits for the
/// answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Bytes of one stream that may be on their way before the receiver has taken them. Enough for 50 MB/s over 20 ms;
/// what is taken in further ahead has left the processor's caches when its turn comes.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

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
    let LearnerOptions { config, run_dir, resume, access, operations, progress } = options;
    // Before anybody joins in vain.
    crate::device::open(config.learner.device).map_err(TrainError::from)?;
    let address = listener.local_addr().map_err(|e| internal("no address to listen on", &e))?;
    let (version, books, totals) = match &resume {
        Some(c) => (c.policy_version, c.accounting.clone().resumed(), c.totals.clone()),
        None => Default::default(),
    };
    let intake = Arc::new(Intake::new(&config, version, books));
    let environment = resume.as_ref().map(|checkpoint| checkpoint.environment.clone());
    let roster = Roster::new(new_run_id(), &config, environment, intake.clone());
    let roster = Arc::new(roster.map_err(|e| internal("the configuration has no form in JSON", &e))?);
    let broadcast = Arc::new(Broadcast::default());
    let recorder = Arc::new(Recorder::new(totals));
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
        StopOnDrop(tokio::spawn(operations::serve(metrics, guard, listener, std::future::pending())))
    });
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
                    start(&config, &run_dir, resume.as_ref(), &spec, &intake, &broadcast, &recorder)
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
    let ended = match ended {
        // The trainer's own ending.
        Some(ended) if serving || training.is_none() => ended,
        Some(Err(failure)) => {
            let _ = ending(&mut training).await;
            Err(failure)
        }
        _ => ending(&mut training).await,
    };
    if tokio::time::timeout(grace, intake.departed()).await.is_err() {
        tracing::warn!(?grace, "some actors did not say goodbye in time; what they held counts as lost");
    }
    let accounting = intake.close_books();
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

/// The ending that the trainer's thread will tell.
type Training = oneshot::Receiver<Result<Ending, TrainError>>;

/// Waits for the trainer's thread.
async fn ending(training: &mut Option<Training>) -> Result<Ending, LearnerError> {
    let Some(training) = training else { return Ok(Ending::Stopped) };
    match training.await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            Err(LearnerError::Internal("the trainer's thread has panicked; its message is above".into()))
        }
    }
}

/// Starts the trainer's thread; the receiver gets its ending.
fn start(
    config: &RunConfig,
    run_dir: &RunDir,
    resume: Option<&Checkpoint>,
    spec: &EnvironmentSpec,
    intake: &Arc<Intake>,
    broadcast: &Arc<Broadcast>,
    recorder: &Arc<Recorder>,
) -> Result<Training, LearnerError> {
    let goal = config.run.until_return.threshold(spec.solved_return);
    recorder.set_threshold(goal);
    run_dir.write_environment(spec)?;
    let mut trainer = Trainer::new(config, spec)?;
    if let Some(checkpoint) = resume {
        trainer.restore(checkpoint)?;
    }
    let session = Session {
        config: config.clone(),
        trainer,
        intake: intake.clone(),
        broadcast: broadcast.clone(),
        recorder: recorder.clone(),
        checkpoints: CheckpointWriter::start(run_dir.path(), config.report.checkpoints_kept)
            .map_err(|e| LearnerError::Internal(format!("cannot start the checkpoint writer: {e}")))?,
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

/// Serves `service` to those whom `access` lets in, with health and reflection beside it, until `stopped` completes and all streams have ended.
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
    let (connections, message_bytes) = (limits.connections, limits.message_bytes);
    let guard = Guard::new(access.token);
    let learner = SetAside(LearnerServer::new(service).max_decoding_message_size(message_bytes));
    let incoming = access::incoming(listener, access.tls, connections, KEEPALIVE);
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

/// A name that no other run of any learner has.
fn new_run_id() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since_epoch.as_nanos(), std::process::id())
}
