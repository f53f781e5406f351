//! An actor's life: ask what is trained, make the environment, join, roll out, leave; and all over again when
//! the learner no longer knows this actor.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use impresario_common::config::{EnvironmentSection, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::UnrollLayout;
use impresario_common::wire::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, v1};
use tokio::sync::{oneshot, watch};

use crate::connection::{Address, CallError, Client, Patience, with_deadline};
use crate::downlink::{Downlink, DownlinkEnd};
use crate::env::registry::Registry;
use crate::env::source::{Environments, Source, SourceError};
use crate::error::ActorError;
use crate::options::{ActorOptions, Division};
use crate::rollout::{self, Crew, Former, Plan, Streams, buffering};
use crate::uplink::{Uplink, UplinkEnd};

/// What an actor did, all its incarnations together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActorSummary {
    /// Environment steps taken.
    pub produced_steps: u64,
    /// Environment steps that the learner acknowledged.
    pub acknowledged_steps: u64,
    /// Unrolls that the learner acknowledged.
    pub acknowledged_unrolls: u64,
    /// Environment steps that the actor dropped, by reason.
    pub dropped_steps: BTreeMap<String, u64>,
    /// Times that the actor joined as a new one.
    pub incarnations: u32,
}

impl ActorSummary {
    fn add(&mut self, crew: &Crew) {
        self.produced_steps += crew.counters.produced_steps();
        self.acknowledged_steps += crew.outbox.acknowledged_steps();
        self.acknowledged_unrolls += crew.outbox.acknowledged_unrolls();
        for (reason, steps) in crew.counters.dropped_steps() {
            *self.dropped_steps.entry(reason).or_default() += steps;
        }
        self.incarnations += 1;
    }
}

/// The runtime for an actor: one thread is plenty for its two streams, and leaves the cores to the workers.
///
/// # Errors
/// If the operating system refuses.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Acts for the learner that `options` name, in an environment of `registry`, until the run is over or
/// `shutdown` completes.
///
/// # Errors
/// If the learner cannot be reached for too long or refuses this actor, or an environment fails.
pub async fn run(
    options: ActorOptions,
    registry: Registry,
    shutdown: impl Future<Output = ()>,
) -> Result<ActorSummary, ActorError> {
    let address = Address::parse(&options.learner, &options.security)?;
    let mut stage = Stage { environments: Environments::new(registry, &options.python), found: None };
    let mut patience = Patience::new(&address, options.give_up_after);
    // With a learner that lets this actor in and then does not know it: a life without one unroll is no success.
    let mut futility = Patience::new(&address, options.give_up_after);
    let mut summary = ActorSummary::default();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let admission = tokio::select! {
            admission = admit(&address, &options, &mut stage, &mut patience) => admission?,
            () = &mut shutdown => return Ok(summary),
        };
        let Some(admission) = admission else {
            tracing::info!("the run is over");
            return Ok(summary);
        };
        let crew = admission.crew();
        let end = live(admission, &crew, &address, &options, shutdown.as_mut()).await;
        summary.add(&crew);
        match end? {
            End::Leave => return Ok(summary),
            End::JoinAfresh(reason) => {
                if crew.outbox.acknowledged_unrolls() > 0 {
                    futility.renew();
                }
                tracing::warn!("the learner at {} no longer knows this actor: {reason}", address.url());
                tokio::select! {
                    paused = futility.pause("it does not keep this actor") => paused?,
                    () = &mut shutdown => return Ok(summary),
                }
            }
        }
    }
}

/// Where the environment comes from. Joining again does not look it up again, which may take seconds.
struct Stage {
    environments: Environments,
    found: Option<(EnvironmentSection, Source)>,
}

impl Stage {
    async fn find(&mut self, options: &EnvironmentSection) -> Result<Source, ActorError> {
        if let Some((known, source)) = &self.found
            && known == options
        {
            return Ok(source.clone());
        }
        let (environments, section) = (self.environments.clone(), options.clone());
        let (tell, found) = oneshot::channel::<Result<Source, SourceError>>();
        // A thread of its own, for which nobody waits if the actor is told to leave.
        std::thread::Builder::new()
            .name("environment".into())
            .spawn(move || drop(tell.send(environments.find(&section))))
            .map_err(|source| ActorError::Thread { worker: 0, source })?;
        let source = found
            .await
            .map_err(|_| ActorError::Configuration("looking up the environment failed".into()))??;
        self.found = Some((options.clone(), source.clone()));
        Ok(source)
    }
}

/// A place in the run.
struct Admission {
    /// The connection that it was given on.
    client: Client,
    /// The life of the run that it was given in.
    life: u64,
    /// What to say when joining again.
    join: v1::JoinRequest,
    identity: v1::Identity,
    config: RunConfig,
    plan: Plan,
}

impl Admission {
    fn crew(&self) -> Arc<Crew> {
        let crew = Crew::new(self.plan.division.workers, self.config.rollout.uplink_bytes);
        crew.grants.begin_life(self.life);
        Arc::new(crew)
    }
}

/// How a life as one incarnation ended.
enum End {
    /// The actor's work is done.
    Leave,
    /// The identity is lost.
    JoinAfresh(String),
}

/// Tries until the learner admits this actor; `None` if the run is over.
async fn admit(
    address: &Address,
    options: &ActorOptions,
    stage: &mut Stage,
    patience: &mut Patience,
) -> Result<Option<Admission>, ActorError> {
    loop {
        match try_admit(address, options, stage).await {
            Ok(admission) => {
                patience.renew();
                return Ok(Some(admission));
            }
            Err(AdmissionError::Actor(error)) => return Err(error),
            Err(AdmissionError::Call(CallError::Refused { refusal, message })) => match refusal {
                v1::Refusal::Finished => return Ok(None),
                _ => return Err(address.refused(message)),
            },
            Err(AdmissionError::Call(CallError::Untrusted(problem))) => {
                return Err(address.untrusted(problem));
            }
            Err(AdmissionError::Call(CallError::Unreachable(problem))) => patience.pause(&problem).await?,
        }
    }
}

/// Why an attempt to be admitted failed.
enum AdmissionError {
    /// The call did.
    Call(CallError),
    /// What the learner said is of no use here.
    Actor(ActorError),
}

impl From<tonic::Status> for AdmissionError {
    fn from(status: tonic::Status) -> Self {
        Self::Call(status.into())
    }
}

impl<E: Into<ActorError>> From<E> for AdmissionError {
    fn from(error: E) -> Self {
        Self::Actor(error.into())
    }
}

async fn try_admit(
    address: &Address,
    options: &ActorOptions,
    stage: &mut Stage,
) -> Result<Admission, AdmissionError> {
    let mut client = address.connect().await.map_err(AdmissionError::Call)?;
    let run = client.describe(with_deadline(v1::DescribeRequest {})).await?.into_inner();
    if run.protocol_version != PROTOCOL_VERSION {
        let url = address.url().into();
        return Err(
            ActorError::Protocol { url, learner: run.protocol_version, actor: PROTOCOL_VERSION }.into()
        );
    }
    let config = parse_config(&run.configuration_json)?;
    let environment = stage.find(&config.environment).await?;
    let spec = environment.spec();
    let policy = PolicySpec::of_run(&config, spec).map_err(ActorError::from)?;
    let division = options.division(config.rollout.envs_per_actor, config.rollout.workers_per_actor)?;
    let division = {
        let (config, environment, policy) = (config.clone(), environment.clone(), policy.clone());
        let dividing = move || buffering::divide(&config, &environment, &policy, division);
        let divided = tokio::task::spawn_blocking(dividing).await;
        divided.unwrap_or_else(|panic| {
            let message = format!("its environment panicked while it was timed: {panic}");
            Err(ActorError::Worker { worker: 0, message })
        })?
    };
    let mut join = join_request(spec, division);
    let joined = client.join(with_deadline(join.clone())).await?.into_inner();
    let Some(identity) = joined.identity else {
        return Err(ActorError::Contract("it admitted this actor without an identity".into()).into());
    };
    join.identity = Some(identity.clone());
    tracing::info!(
        "joined run {} as actor {}, incarnation {}: {} with {} copies in {} worker(s), unrolls of {} steps",
        identity.run_id,
        identity.actor,
        identity.incarnation,
        spec.id,
        division.workers * division.copies,
        division.workers,
        config.rollout.unroll_length,
    );
    let resume = (!joined.rollout.is_empty())
        .then(|| Former { rollout: joined.rollout.into(), grant: joined.rollout_grant });
    let streams = Streams { seed: config.run.seed, actor: identity.actor, incarnation: identity.incarnation };
    let plan = Plan {
        environment: environment.clone(),
        layout: UnrollLayout::of_run(&config, config.rollout.unroll_length, spec, &policy),
        policy,
        division,
        streams,
        max_failures: config.environment.max_failures,
        resume,
        positions_kept: rollout::positions_kept(&config, division.copies),
    };
    Ok(Admission { client, life: joined.life, join, identity, config, plan })
}

fn parse_config(json: &str) -> Result<RunConfig, ActorError> {
    let config: RunConfig =
        serde_json::from_str(json).map_err(|e| ActorError::Configuration(e.to_string()))?;
    config.validate().map_err(|e| ActorError::Configuration(e.to_string()))?;
    Ok(config)
}

fn join_request(spec: &EnvironmentSpec, division: Division) -> v1::JoinRequest {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unnamed" } else { host.trim() };
    v1::JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        description: format!("{host}/{}", std::process::id()),
        identity: None,
        environment: Some(spec.into()),
        workers: division.workers as u32,
        copies_per_worker: division.copies as u32,
        standing: None,
    }
}

/// One incarnation, from the first unroll to the Goodbye.
async fn live(
    admission: Admission,
    crew: &Arc<Crew>,
    address: &Address,
    options: &ActorOptions,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Result<End, ActorError> {
    let Admission { client, join, identity, config, plan, .. } = admission;
    // However this function ends, the workers do, too.
    let _stop = StopOnDrop(crew);
    rollout::start(&plan, crew)?;

    let (connected, reachable) = watch::channel(false);
    let patience = || Patience::new(address, options.give_up_after);
    let uplink = Uplink {
        address: address.clone(),
        join,
        crew: crew.clone(),
        connected,
        patience: patience(),
        // The actor that takes up what a Goodbye says must be able to read it, too.
        message_bytes: config.limits.message_bytes.min(MAX_MESSAGE_BYTES),
    };
    let downlink = Downlink {
        address: address.clone(),
        identity,
        spec: plan.policy,
        crew: crew.clone(),
        connected: reachable,
        patience: patience(),
    };
    let mut uplink = std::pin::pin!(uplink.run(client));
    let mut downlink = std::pin::pin!(downlink.run());
    let (mut watching, mut told_to_stop, mut trouble) = (true, false, None);
    let end = loop {
        tokio::select! {
            end = &mut uplink => break end,
            end = &mut downlink, if watching => {
                watching = false;
                match end {
                    // The stream of unrolls will hear it, too.
                    Ok(DownlinkEnd::Finished) => {}
                    // An actor that leaves has no use for another life; the uplink brings this one to its end.
                    Ok(DownlinkEnd::IdentityRefused(_)) if told_to_stop => {}
                    Ok(DownlinkEnd::IdentityRefused(reason)) => return Ok(End::JoinAfresh(reason)),
                    Err(error) => {
                        trouble = Some(error);
                        crew.stop();
                    }
                }
            }
            () = &mut shutdown, if !told_to_stop => {
                told_to_stop = true;
                tracing::info!("stopping: delivering what is finished");
                crew.stop();
            }
        }
    };
    // What made the actor stop says more than how the stream ended because of it.
    if let Some(failure) = crew.failure() {
        return Err(ActorError::Worker { worker: failure.worker, message: failure.message });
    }
    if let Some(error) = trouble {
        return Err(error);
    }
    Ok(match end? {
        UplinkEnd::IdentityLost(reason) if !told_to_stop => End::JoinAfresh(reason),
        UplinkEnd::Finished | UplinkEnd::Stopped | UplinkEnd::IdentityLost(_) => End::Leave,
    })
}

/// Stops a crew when it goes out of scope.
struct StopOnDrop<'a>(&'a Crew);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
