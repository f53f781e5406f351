//! Roster: who is connected, under which identity, in which environment.
//!
//! The door of the run: spaces, protocol and shapes are checked here, once, when an actor joins. What an
//! actor has been granted and has delivered is in the [`Intake`]'s books.

mod places;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use impresario_common::config::{LimitsSection, RunConfig};
use impresario_common::policy::PolicySpec;
use impresario_common::space::EnvironmentSpec;
use impresario_common::unroll::UnrollLayout;
use impresario_common::wire::v1::{self, Refusal};
use impresario_common::wire::{PROTOCOL_VERSION, WireError};

use crate::accounting::Accounting;
use crate::intake::{ActorKey, AdmissionError, Intake, OpenStream, SavedBooks, Standing};
use crate::lives::RunRecord;
use crate::pacing::ActorId;
use places::Places;

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

/// The actors' places and accounts, as a checkpoint keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedActors {
    places: Places,
    /// Actors that have joined.
    joined: u64,
    /// Their accounts.
    pub books: SavedBooks,
}

impl SavedActors {
    /// The life of the run that they were of.
    pub fn life(&self) -> usize {
        self.places.life() as usize
    }

    /// When all have left, and the run's books are closed.
    pub fn left(self, accounting: &Accounting) -> Self {
        Self { books: SavedBooks::closed(accounting), ..self }
    }
}

/// Where an actor stood when a lockstep run was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Workers and copies of each, by which it is known whether another actor can go on from there.
    pub workers: usize,
    /// Copies of each worker.
    pub columns: usize,
    /// Index after the last grant trained on.
    pub grant: u64,
    /// The actor's own words.
    pub state: Vec<u8>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Roster {
    record: RunRecord,
    config: RunConfig,
    configuration_json: String,
    intake: Arc<Intake>,
    members: DashMap<ActorId, Member>,
    /// Held while an actor gets a place and an account, so that a checkpoint has both or neither.
    places: Mutex<Places>,
    joined: AtomicU64,
    /// Where actors stood that joined before the run was stopped, the first ones first, for those to come.
    rollouts: Mutex<Vec<Rollout>>,
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
    /// An empty roster for the run on `record`; `environment` is known already when a run is resumed.
    ///
    /// # Errors
    /// If the configuration has no form in JSON.
    pub fn new(
        record: RunRecord,
        config: &RunConfig,
        environment: Option<EnvironmentSpec>,
        intake: Arc<Intake>,
    ) -> Result<Self, serde_json::Error> {
        Self::resumed(record, config, environment, intake, SavedActors::default(), vec![])
    }

    /// The roster of a life that goes on from `saved`: actors whose accounts `intake` has inherited may come back. New ones
    /// are given `rollouts`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn resumed(
        record: RunRecord,
        config: &RunConfig,
        environment: Option<EnvironmentSpec>,
        intake: Arc<Intake>,
        saved: SavedActors,
        rollouts: Vec<Rollout>,
    ) -> Result<Self, serde_json::Error> {
        let members = DashMap::new();
        for (key, closed) in intake.inherited() {
            let description = "a former life of the run".into();
            members.insert(key.actor, Member { incarnation: key.incarnation, description, closed });
        }
        let life = u32::try_from(record.life()).unwrap_or(u32::MAX);
        Ok(Self {
            record,
            config: config.clone(),
            configuration_json: serde_json::to_string(config)?,
            intake,
            members,
            places: Mutex::new(Places::resumed(saved.places, life)),
            joined: AtomicU64::new(saved.joined),
            rollouts: Mutex::new(rollouts),
            environment: watch::Sender::new(environment),
        })
    }

    /// The run, as anyone may know it.
    pub fn run(&self) -> v1::Run {
        v1::Run {
            run_id: self.record.run_id.clone(),
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
        self.joined.load(Ordering::Relaxed)
    }

    /// The run's books, and all that is to be known of its actors after a restart.
    pub fn saved(&self) -> (Accounting, SavedActors) {
        let places = self.places.lock();
        let (accounting, books) = self.intake.saved();
        (accounting, SavedActors { places: places.clone(), joined: self.joined(), books })
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
        let description: String = request.description.chars().take(MAX_DESCRIPTION).collect();
        if let Some(identity) = request.identity {
            if self.may_adopt(&identity) && !self.intake.is_finished() {
                self.claim_environment(&environment)?;
                self.adopt(&identity, description, workers, columns, &layout);
            }
            let (key, _) = self.authenticate(&identity)?;
            let standing = request.standing.map(Standing::from).unwrap_or_default();
            let resume_sequence = self.intake.resume(key, standing)?;
            return Ok(self.welcome(key, resume_sequence));
        }
        if self.intake.is_finished() {
            return Err(AdmissionError::Finished.into());
        }
        self.claim_environment(&environment)?;
        self.forget_closed();
        let mut places = self.places.lock();
        let actor = places.take().ok_or_else(|| {
            Refused::new(
                Refusal::Shape,
                "more actors have joined than this learner has numbers: restart it with --resume",
            )
        })?;
        let key = ActorKey { actor, incarnation: 1 };
        let closed = self.intake.join(key, workers, columns, &layout);
        drop(places);
        self.joined.fetch_add(1, Ordering::Relaxed);
        let member = Member { incarnation: key.incarnation, description, closed };
        tracing::info!(actor, from = member.description, workers, copies = columns, "actor joined");
        self.members.insert(actor, member);
        let mut response = self.welcome(key, 0);
        if let Some(rollout) = self.take_rollout(workers, columns) {
            (response.rollout, response.rollout_grant) = (rollout.state.into(), rollout.grant);
        }
        Ok(response)
    }

    /// Those whose accounts were closed in the meantime need no place among the members any more.
    fn forget_closed(&self) {
        self.members.retain(|_, member| !member.closed.is_cancelled());
    }

    /// Where an actor of this shape stood when the run was stopped, the first such one that nobody has taken up.
    fn take_rollout(&self, workers: usize, columns: usize) -> Option<Rollout> {
        let mut rollouts = self.rollouts.lock();
        let at = rollouts.iter().position(|r| (r.workers, r.columns) == (workers, columns))?;
        Some(rollouts.remove(at))
    }

    /// Whether an identity may be of an actor that a former life of the run let in after its last checkpoint.
    fn may_adopt(&self, identity: &v1::Identity) -> bool {
        identity.run_id == self.record.run_id
            && identity.incarnation == 1
            && self.record.takes_over_from(Places::life_of(identity.actor) as usize)
            && self.places.lock().may_adopt(identity.actor)
    }

    /// Takes such an actor in.
    fn adopt(
        &self,
        identity: &v1::Identity,
        description: String,
        workers: usize,
        columns: usize,
        layout: &UnrollLayout,
    ) {
        let key = ActorKey { actor: identity.actor, incarnation: identity.incarnation };
        self.forget_closed();
        let mut places = self.places.lock();
        if !places.may_adopt(key.actor) {
            return;
        }
        places.adopt(key.actor);
        let closed = self.intake.adopt(key, workers, columns, layout);
        drop(places);
        self.joined.fetch_add(1, Ordering::Relaxed);
        tracing::info!(actor = key.actor, from = description, "actor of a former life of the run is back");
        self.members.insert(key.actor, Member { incarnation: key.incarnation, description, closed });
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
            Some(closed) if identity.run_id == self.record.run_id => Ok((key, closed)),
            // No kind of refusal: it is to try again when it has joined.
            _ if self.may_adopt(identity) => Err(Refused::new(
                Refusal::Unspecified,
                "this learner was restarted and does not know this actor yet: join with the identity held",
            )),
            _ => Err(Refused::new(
                Refusal::Identity,
                format!(
                    "this learner (run {}) does not know actor {} incarnation {}, or counts it as lost: join afresh",
                    self.record.run_id, identity.actor, identity.incarnation
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
        let identity = v1::Identity {
            run_id: self.record.run_id.clone(),
            actor: key.actor,
            incarnation: key.incarnation,
        };
        v1::JoinResponse {
            run: Some(self.run()),
            identity: Some(identity),
            resume_sequence,
            life: self.record.life() as u64,
            rollout: Default::default(),
            rollout_grant: 0,
        }
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
