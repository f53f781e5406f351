//! Roster: who is connected, under which identity, in which environment.
//!
//! The door of the run: spaces, protocol and shapes are checked here, once, when an actor joins. What an
//! actor has been granted and has delivered is in the [`Intake`]'s books.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use tokio::sync::{Notify, watch};

use impresario_common::config::RunConfig;
use impresario_common::policy::PolicySpec;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::UnrollLayout;
use impresario_common::wire::v1::{self, Refusal};
use impresario_common::wire::{PROTOCOL_VERSION, WireError};

use crate::intake::{ActorKey, Intake};
use crate::pacing::ActorId;

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
    /// Rung when there is mail for it.
    bell: Arc<Notify>,
    /// Number of its newest stream; an older stream ends when it sees a newer number.
    stream: watch::Sender<u64>,
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

/// A stream's hold on its place in the roster.
#[derive(Debug)]
pub struct StreamSeat {
    /// Whose stream it is.
    pub key: ActorKey,
    /// Rings when there is mail.
    pub bell: Arc<Notify>,
    number: u64,
    newest: watch::Receiver<u64>,
}

impl StreamSeat {
    /// Waits until a newer stream or incarnation of the actor has taken over.
    pub async fn replaced(&mut self) {
        let number = self.number;
        // An error means that the member is gone, which replaces the stream as well.
        let _ = self.newest.wait_for(|&newest| newest != number).await;
    }

    /// Whether a newer stream or incarnation has taken over.
    pub fn is_replaced(&self) -> bool {
        *self.newest.borrow() != self.number || self.newest.has_changed().is_err()
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
        let environment = self.check_environment(request.environment)?;
        let (workers, columns) = (request.workers as usize, request.copies_per_worker as usize);
        if workers == 0 || columns == 0 {
            return Err(Refused::new(
                Refusal::Shape,
                "an actor needs at least 1 worker and 1 environment copy",
            ));
        }
        let layout = UnrollLayout::new(self.config.rollout.unroll_length, &environment);
        self.intake.check_shape(&layout, columns).map_err(|e| Refused::new(Refusal::Shape, e))?;
        if let Some(identity) = request.identity {
            let key = self.authenticate(&identity)?;
            let resume_sequence = self.resume_sequence(key)?;
            return Ok(self.welcome(key, resume_sequence));
        }
        let actor = self.next_actor.fetch_add(1, Ordering::Relaxed);
        let key = ActorKey { actor, incarnation: 1 };
        let bell = self.intake.join(key, workers, columns, &layout);
        let member = Member {
            incarnation: key.incarnation,
            description: request.description,
            bell,
            stream: watch::Sender::new(0),
        };
        tracing::info!(actor, from = member.description, workers, copies = columns, "actor joined");
        self.members.insert(actor, member);
        self.environment.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(environment);
            first
        });
        Ok(self.welcome(key, 0))
    }

    /// The account behind an identity.
    ///
    /// # Errors
    /// If the identity is of another run or another incarnation.
    pub fn authenticate(&self, identity: &v1::Identity) -> Result<ActorKey, Refused> {
        let key = ActorKey { actor: identity.actor, incarnation: identity.incarnation };
        let known = self.members.get(&key.actor).is_some_and(|m| m.incarnation == key.incarnation);
        if identity.run_id != self.run_id || !known {
            return Err(Refused::new(
                Refusal::Identity,
                format!(
                    "this learner (run {}) does not know actor {} incarnation {} of run {}: join afresh",
                    self.run_id, identity.actor, identity.incarnation, identity.run_id
                ),
            ));
        }
        Ok(key)
    }

    /// Seats a new stream of an actor; older ones are told to end.
    ///
    /// # Errors
    /// If the identity is not valid, or its account is closed.
    pub fn seat(&self, identity: &v1::Identity) -> Result<StreamSeat, Refused> {
        let key = self.authenticate(identity)?;
        let seat = {
            let Some(member) = self.members.get(&key.actor) else {
                return Err(Refused::new(Refusal::Identity, "the actor has just left: join afresh"));
            };
            let mut number = 0;
            member.stream.send_modify(|newest| {
                *newest += 1;
                number = *newest;
            });
            StreamSeat { key, bell: member.bell.clone(), number, newest: member.stream.subscribe() }
        };
        self.intake.connected(key).map_err(|e| Refused::new(Refusal::Identity, e))?;
        Ok(seat)
    }

    /// A stream has ended.
    pub fn leave(&self, seat: &StreamSeat) {
        if !seat.is_replaced() {
            self.intake.disconnected(seat.key);
        }
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

    fn resume_sequence(&self, key: ActorKey) -> Result<u64, Refused> {
        self.intake.resume_sequence(key).ok_or_else(|| {
            Refused::new(Refusal::Identity, "the actor was away for too long and counts as lost: join afresh")
        })
    }

    fn check_environment(
        &self,
        environment: Option<v1::EnvironmentSpec>,
    ) -> Result<EnvironmentSpec, Refused> {
        let refuse = |message: String| Refused::new(Refusal::Environment, message);
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
            if known.observation != environment.observation || known.action != environment.action {
                return Err(refuse(format!(
                    "{wanted} has observations {} and actions {} in this run, but {} and {} on the actor: use the \
                     same version and options of the environment on every actor",
                    known.observation, known.action, environment.observation, environment.action
                )));
            }
        } else {
            PolicySpec::new(&environment, &self.config.policy)
                .map_err(|e| refuse(format!("{wanted}: {e}")))?;
        }
        Ok(environment)
    }
}
