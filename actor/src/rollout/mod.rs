//! Rollout workers: threads that step environments with the newest policy and fill unrolls.
//!
//! # Layout
//!
//! * [`sampler`]: one worker's environments: act, step, write into the unroll.
//! * `buffering`: whether a worker's copies are divided into two groups.
//! * `position`: where a worker stands, for another process to go on from there.
//! * `noise`: noise that is a function of the state.
//! * `worker`: one worker's loop: permission, weights, unroll, outbox.
//! * `crew`: what all workers share, with the network too, and how they stop.
//! * here: starting them.

pub(crate) mod buffering;
mod crew;
mod noise;
mod position;
pub mod sampler;
mod worker;

use std::sync::Arc;

use impresario_common::config::RunConfig;
use impresario_common::policy::PolicySpec;
use impresario_common::random::{self, Purpose, Stream};
use impresario_common::unroll::{Unroll, UnrollLayout};
use prost::Message;

use crate::env::source::Source;
use crate::error::ActorError;
use crate::options::Division;

pub(crate) use crew::Crew;
use position::Positions;
pub use position::{Note, Position};
pub use sampler::{ActionChoice, Filled, Sampler, SamplerError};

/// What the workers are to do.
pub(crate) struct Plan {
    pub(crate) environment: Source,
    pub(crate) layout: UnrollLayout,
    pub(crate) policy: PolicySpec,
    pub(crate) division: Division,
    pub(crate) streams: Streams,
    /// Failures of an environment in a row after which its worker fails.
    pub(crate) max_failures: u32,
    /// The actor whose place this one takes in a lockstep run that was stopped.
    pub(crate) resume: Option<Former>,
    /// Positions that each worker notes of itself; 0 where the run is not in lockstep.
    pub(crate) positions_kept: usize,
}

/// Where a former actor stood.
pub(crate) struct Former {
    /// Its own words.
    pub(crate) rollout: Vec<u8>,
    /// The first of its grants that was not trained on.
    pub(crate) grant: u64,
}

/// Positions that a worker must note so that one of them is from before the first unroll that a lockstep learner may not have
/// trained on: that learner grants no more than a batch at a time.
pub(crate) fn positions_kept(config: &RunConfig, copies: usize) -> usize {
    match config.learner.max_policy_lag.0 {
        Some(0) => config.learner.batch_size.div_ceil(copies.max(1)) + 2,
        _ => 0,
    }
}

/// Where the randomness of an actor's environment copies comes from: the run's seed, the actor's place and
/// incarnation, and the copy's number among the actor's copies, however these are divided among workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) seed: u64,
    pub(crate) actor: u32,
    pub(crate) incarnation: u64,
}

impl Streams {
    /// One stream for each of the `copies` copies of `worker`.
    fn of(self, purpose: Purpose, worker: usize, copies: usize) -> Vec<Stream> {
        let first = worker * copies;
        let stream = |copy: usize| {
            // Incarnations count from small numbers; only their lower half tells streams apart.
            random::stream(self.seed, purpose, [self.actor, self.incarnation as u32, copy as u32])
        };
        (first..first + copies).map(stream).collect()
    }
}

/// Starts the workers. They end when the crew is stopped or one of them fails.
///
/// # Errors
/// If the environment is unknown, its observations cannot be acted on, or a thread cannot be started.
pub(crate) fn start(plan: &Plan, crew: &Arc<Crew>) -> Result<(), ActorError> {
    let (samplers, turn) = match plan.resume.as_ref().map(|former| resumed(plan, former)) {
        Some(Ok(samplers)) => samplers,
        Some(Err(problem)) => {
            tracing::warn!("cannot go on where another actor stood, and starts new episodes: {problem}");
            (samplers(plan)?, 0)
        }
        None => (samplers(plan)?, 0),
    };
    crew.begin_at_turn(turn);
    for (worker, (sampler, unroll)) in samplers.into_iter().enumerate() {
        let guard = crew.enlist(worker);
        let work = worker::Worker {
            crew: crew.clone(),
            worker,
            sampler,
            layout: plan.layout.clone(),
            max_failures: plan.max_failures,
            unroll,
            positions_kept: plan.positions_kept,
        };
        std::thread::Builder::new()
            .name(format!("rollout-{worker}"))
            .spawn(move || guard.watch_over(move || work.run()))
            .map_err(|source| ActorError::Thread { worker, source })?;
    }
    Ok(())
}

/// Workers' samplers, each with the unroll that it fills.
type Samplers = Vec<(Sampler, Unroll)>;

/// Samplers that begin new episodes.
fn samplers(plan: &Plan) -> Result<Samplers, ActorError> {
    let copies = plan.division.copies;
    let sampler = |worker: usize| {
        let environments = plan.streams.of(Purpose::Environment, worker, copies);
        let vector = plan.environment.make_vector(environments)?;
        let actions = plan.streams.of(Purpose::Actions, worker, copies);
        let distribution = plan.policy.distribution().clone();
        let mut sampler = Sampler::new(vector, distribution, &plan.layout, actions, ActionChoice::Sampled)
            .map_err(|e| ActorError::Worker { worker, message: e.to_string() })?;
        if plan.positions_kept > 0 {
            sampler.keep_track();
        }
        let unroll = Unroll::zeros(&plan.layout, copies);
        Ok((sampler, unroll))
    };
    (0..plan.division.workers).map(sampler).collect()
}

/// Samplers that go on where those of a former actor stood, and the worker whose turn is next.
fn resumed(plan: &Plan, former: &Former) -> Result<(Samplers, usize), String> {
    let positions = Positions::decode(former.rollout.as_slice()).map_err(|e| e.to_string())?;
    let workers = plan.division.workers;
    let turn = (positions.first_turn % workers as u64 + former.grant % workers as u64) % workers as u64;
    let positions = positions.before(former.grant, workers)?;
    let mut samplers = samplers(plan).map_err(|e| e.to_string())?;
    for ((sampler, unroll), position) in samplers.iter_mut().zip(positions) {
        sampler.resume(position, unroll).map_err(|e| e.to_string())?;
    }
    Ok((samplers, turn as usize))
}
