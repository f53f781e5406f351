//! Roster: who is connected, under which identity, in which environment.
//!
//! The door of the run: spaces, protocol and shapes are checked here, once, when an actor joins. What an
//! actor has been granted and has delivered is in the [`Intake`]'s books.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use impresario_common::config::{LimitsSection, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::UnrollLayout;
use impresario_common::wire::v1::{self, Refusal};
use impresario_common::wire::{PROTOCOL_VERSION, WireError};

use crate::intake::{ActorKey, AdmissionError, Intake, OpenStream};
use crate::pacing::ActorId;

/// Characters of an actor's description that are kept.
const MAX_DESCRIPTION: usize = 200;

/// A refusal at the door, and what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// Which kind.
    pub refusal: Refusal,
    /// What was wrong and what would do.
    pub message: String,
}

impl Refused {
    /// A refusal of kind `refusal`.
    pub fn new(refusal: Refusal, message: impl std::fmt::Display) -> Self {
        Self { refusal, message: message.to_string() }
    }
}

/// An actor that has joined.
#[derive(Debug)]
struct Member {
    incarnation: u64,
    description: String,
    /// Set when its account is closed.
    closed: CancellationToken,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Roster {
    run_id: String,
    config: RunConfig,
    configuration_json: String,
    intake: Arc<Intake>,
    members: DashMap<ActorId, Member>,
    next_actor: AtomicU32,
    /// Set by the first actor, or by a checkpoint.
    environment: watch::Sender<Option<EnvironmentSpec>>,
}

/// A stream's hold on its actor's account, until this is dropped.
#[derive(Debug)]
pub struct StreamSeat {
    /// The stream.
    pub stream: OpenStream,
    intake: Arc<Intake>,
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        self.intake.disconnected(self.stream.key);
    }
}

impl Roster {
    /// An empty roster for the run called `run_id`; `environment` is known already when a run is resumed.
    ///
    /// # Errors
    /// If the configuration has no form in JSON.
    pub fn new(
        run_id: String,
        config: &RunConfig,
        environment: Option<EnvironmentSpec>,
        intake: Arc<Intake>,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            run_id,
            config: config.clone(),
            configuration_json: serde_json::to_string(config)?,
            intake,
            members: DashMap::new(),
            next_actor: AtomicU32::new(0),
            environment: watch::Sender::new(environment),
        })
    }

    /// The run, as anyone may know it.
    pub fn run(&self) -> v1::Run {
        v1::Run {
            run_id: self.run_id.clone(),
            protocol_version: PROTOCOL_VERSION,
            configuration_json: self.configuration_json.clone(),
        }
    }

    /// How much of the learner anyone may take up.
    pub fn limits(&self) -> &LimitsSection {
        &self.config.limits
    }

    /// The run's environment; known when the first actor has joined.
    pub fn environment(&self) -> watch::Receiver<Option<EnvironmentSpec>> {
        self.environment.subscribe()
    }

    /// Actors that have joined so far.
    pub fn joined(&self) -> u64 {
        self.next_actor.load(Ordering::Relaxed).into()
    }

    /// Admits an actor, or one of its lives again.
    ///
    /// # Errors
    /// If it does not fit the run.
    pub fn join(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Refused> {
        if request.protocol_version != PROTOCOL_VERSION {
            return Err(Refused::new(
                Refusal::ProtocolVersion,
                format!(
                    "the actor speaks protocol version {}, this learner {PROTOCOL_VERSION}: run the same release \
                     of Impresario on both sides",
                    request.protocol_version
                ),
            ));
        }
        let (environment, policy) = self.check_environment(request.environment)?;
        let (workers, columns) = (request.workers as usize, request.copies_per_worker as usize);
        if workers == 0 || columns == 0 {
            return Err(Refused::new(
                Refusal::Shape,
                "an actor needs at least 1 worker and 1 environment copy",
            ));
        }
        let length = self.config.rollout.unroll_length;
        let layout = UnrollLayout::of_run(&self.config, length, &environment, &policy);
        self.intake.check_shape(&layout, columns).map_err(|e| Refused::new(Refusal::Shape, e))?;
        if let Some(identity) = request.identity {
            let (key, _) = self.authenticate(&identity)?;
            let resume_sequence = self.resume(key)?;
            return Ok(self.welcome(key, resume_sequence));
        }
        if self.intake.is_finished() {
            return Err(AdmissionError::Finished.into());
        }
        self.claim_environment(&environment)?;
        // Those whose accounts were closed in the meantime need no place any more.
        self.members.retain(|_, member| !member.closed.is_cancelled());
        let actor = self.next_actor.fetch_add(1, Ordering::Relaxed);
        let key = ActorKey { actor, incarnation: 1 };
        let closed = self.intake.join(key, workers, columns, &layout);
        let description = request.description.chars().take(MAX_DESCRIPTION).collect();
        let member = Member { incarnation: key.incarnation, description, closed };
        tracing::info!(actor, from = member.description, workers, copies = columns, "actor joined");
        self.members.insert(actor, member);
        Ok(self.welcome(key, 0))
    }

    /// The account behind an identity, and what is set when it closes.
    ///
    /// # Errors
    /// If the identity is of another run or another incarnation, or its account is closed.
    pub fn authenticate(&self, identity: &v1::Identity) -> Result<(ActorKey, CancellationToken), Refused> {
        let key = ActorKey { actor: identity.actor, incarnation: identity.incarnation };
        let closed = self
            .members
            .get(&key.actor)
            .filter(|m| m.incarnation == key.incarnation && !m.closed.is_cancelled())
            .map(|m| m.closed.clone());
        match closed {
            Some(closed) if identity.run_id == self.run_id => Ok((key, closed)),
            _ => Err(Refused::new(
                Refusal::Identity,
                format!(
                    "this learner (run {}) does not know actor {} incarnation {}, or counts it as lost: join afresh",
                    self.run_id, identity.actor, identity.incarnation
                ),
            )),
        }
    }

    /// Seats a new stream of an actor; older ones are told to end.
    ///
    /// # Errors
    /// If the identity is not valid, or its account is closed.
    pub fn seat(&self, identity: &v1::Identity) -> Result<StreamSeat, Refused> {
        let (key, _) = self.authenticate(identity)?;
        Ok(StreamSeat { stream: self.intake.connect(key)?, intake: self.intake.clone() })
    }

    /// An actor has said goodbye.
    pub fn remove(&self, key: ActorKey) {
        if let Some((actor, member)) =
            self.members.remove_if(&key.actor, |_, m| m.incarnation == key.incarnation)
        {
            tracing::info!(actor, from = member.description, "actor left");
        }
    }

    fn welcome(&self, key: ActorKey, resume_sequence: u64) -> v1::JoinResponse {
        let identity =
            v1::Identity { run_id: self.run_id.clone(), actor: key.actor, incarnation: key.incarnation };
        v1::JoinResponse { run: Some(self.run()), identity: Some(identity), resume_sequence }
    }

    fn resume(&self, key: ActorKey) -> Result<u64, Refused> {
        self.intake.resume(key).ok_or_else(|| {
            Refused::new(Refusal::Identity, "the actor was away for too long and counts as lost: join afresh")
        })
    }

    fn check_environment(
        &self,
        environment: Option<v1::EnvironmentSpec>,
    ) -> Result<(EnvironmentSpec, PolicySpec), Refused> {
        let missing = || WireError::field("environment", "missing");
        let environment: EnvironmentSpec = environment
            .ok_or_else(missing)
            .and_then(TryInto::try_into)
            .map_err(|e| Refused::new(Refusal::Malformed, e))?;
        let wanted = &self.config.environment.id;
        if &environment.id != wanted {
            return Err(refuse(format!(
                "this run trains in {wanted}, the actor offers {}: start it with that environment",
                environment.id
            )));
        }
        if let Some(known) = self.environment.borrow().as_ref() {
            self.check_same(known, &environment)?;
        }
        let policy =
            PolicySpec::of_run(&self.config, &environment).map_err(|e| refuse(format!("{wanted}: {e}")))?;
        Ok((environment, policy))
    }

    fn check_same(&self, known: &EnvironmentSpec, offered: &EnvironmentSpec) -> Result<(), Refused> {
        match known.mismatch("in this run", offered, "on the actor") {
            None => Ok(()),
            Some(mismatch) => Err(refuse(format!(
                "{mismatch}: use the same version and options of the environment on every actor"
            ))),
        }
    }

    /// Makes `environment` the run's, unless another actor was first, whose environment it must then share.
    fn claim_environment(&self, environment: &EnvironmentSpec) -> Result<(), Refused> {
        let mut same = Ok(());
        self.environment.send_if_modified(|known| match known {
            Some(known) => {
                same = self.check_same(known, environment);
                false
            }
            None => {
                *known = Some(environment.clone());
                true
            }
        });
        same
    }
}

fn refuse(message: String) -> Refused {
    Refused::new(Refusal::Environment, message)
}
